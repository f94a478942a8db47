"""The per-user cache of compiled libraries."""

from __future__ import annotations

import hashlib
import os
import tempfile
from functools import cache
from pathlib import Path

from .errors import KernelError

_DIGEST_BYTES = hashlib.sha256().digest_size


def folder() -> Path:
    """Return the cache folder: ``$KERNELS_CACHE_DIR``, or the user's cache folder."""
    chosen = os.environ.get("KERNELS_CACHE_DIR")
    return Path(chosen) if chosen else _user_folder()


@cache
def _user_folder() -> Path:
    from platformdirs import user_cache_path  # imported late: importing the package stays fast

    return user_cache_path("cnn-kernels", appauthor=False) / "compiled"


def find(key: str) -> Path | None:
    """Return the library stored under a key if its content is whole, else None.

    The SHA-256 of key and content follows the content (a loader ignores what follows an ELF
    image), so a truncated, altered or misnamed file is never loaded.
    """
    path = folder() / f"{key}.so"
    try:
        stored = path.read_bytes()
    except OSError:
        return None
    content, digest = stored[:-_DIGEST_BYTES], stored[-_DIGEST_BYTES:]
    return path if digest == _digest(key, content) else None


def store(key: str, content: bytes) -> Path:
    """Store a library under a key and return its path.

    The file appears whole or not at all; two processes may store the same key at once.
    """
    directory = folder()
    path = directory / f"{key}.so"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=directory, prefix=f".{key[:16]}-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content + _digest(key, content))
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise KernelError(
            f"cannot write compiled kernels to the cache folder {directory}: {error.strerror}; "
            "set KERNELS_CACHE_DIR to a folder that can be written"
        ) from error
    return path


def _digest(key: str, content: bytes) -> bytes:
    return hashlib.sha256(key.encode() + content).digest()
