"""The per-user cache of compiled libraries.

If the user has no home or its cache folder cannot be written, libraries go to a temporary folder
that lasts as long as the process. A folder named by ``$KERNELS_CACHE_DIR`` must be writable; if
not, that is an error.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import os
import secrets
import shutil
import tempfile
import threading
import warnings
from functools import cache
from pathlib import Path

from .errors import KernelError

_DIGEST_BYTES = hashlib.sha256().digest_size
_lock = threading.Lock()
_temporary: Path | None = None  # the folder in place of one that cannot be written


def folder() -> Path | None:
    """Return the cache folder: ``$KERNELS_CACHE_DIR``, or the user's cache folder, if any.

    Raises
    ------
    KernelError
        If ``$KERNELS_CACHE_DIR`` begins with the ``~`` of a user without a home folder.
    """
    chosen = os.environ.get("KERNELS_CACHE_DIR")
    if not chosen:
        return _user_folder()
    try:
        # Absolute, since the loader searches its own folders for a name without a slash.
        return Path(chosen).expanduser().absolute()
    except RuntimeError as error:
        raise KernelError(f"KERNELS_CACHE_DIR: got {chosen!r}, and no such home folder") from error


@cache
def _user_folder() -> Path | None:
    from platformdirs import user_cache_path  # imported late: importing the package stays fast

    try:
        path = user_cache_path("cnn-kernels", appauthor=False) / "compiled"
    except RuntimeError:  # no $HOME, and a user without an entry in passwd, as in some containers
        return None
    return path if path.is_absolute() else None  # older platformdirs then return "~/.cache"


def find(key: str) -> Path | None:
    """Return the library stored under a key, or None if there is none or it is damaged.

    A file ends with the SHA-256 of key and content (loaders ignore bytes after an ELF image), so a
    truncated, altered or renamed file is never loaded.
    """
    for directory in filter(None, (folder(), _temporary)):
        path = directory / f"{key}.so"
        try:
            stored = path.read_bytes()
        except OSError:
            continue
        content, digest = stored[:-_DIGEST_BYTES], stored[-_DIGEST_BYTES:]
        if digest == _digest(key, content):
            return path
    return None


def store(key: str, content: bytes) -> Path:
    """Store a library under a key and return its path.

    The file appears whole or not at all; two processes may store the same key at once.

    Raises
    ------
    KernelError
        If it can be written neither to the cache folder nor to a temporary one.
    """
    directory, advice = folder(), "set KERNELS_CACHE_DIR to a folder that can be written"
    if directory is None:
        fault = f"there is no home folder to keep compiled kernels in; {advice}"
    else:
        try:
            return _store(directory, key, content)
        except OSError as error:
            fault = (
                f"cannot write compiled kernels to the cache folder {directory}: "
                f"{error.strerror}; {advice}"
            )
            if os.environ.get("KERNELS_CACHE_DIR"):
                raise KernelError(fault) from error
    try:
        return _store(_temporary_folder(fault), key, content)
    except OSError as error:
        raise KernelError(f"{fault}; a temporary one neither: {error.strerror}") from error


def _store(directory: Path, key: str, content: bytes) -> Path:
    path = directory / f"{key}.so"
    directory.mkdir(parents=True, exist_ok=True)
    temporary = directory / f".{key[:16]}-{secrets.token_hex(4)}"
    try:
        with open(temporary, "xb") as file:  # unlike tempfile's, readable by others
            file.write(content + _digest(key, content))
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    return path


def _temporary_folder(why: str) -> Path:
    """Return this process's temporary folder, made with a warning at first, deleted at exit."""
    global _temporary
    with _lock:
        if _temporary is None:
            _temporary = Path(tempfile.mkdtemp(prefix="kernels-cache-"))
            atexit.register(_remove, _temporary, os.getpid())
            warnings.warn(f"{why}; until then they last as long as this process", RuntimeWarning, 2)
        return _temporary


def _remove(temporary: Path, owner: int) -> None:
    if os.getpid() == owner:  # not a fork of it
        shutil.rmtree(temporary, ignore_errors=True)


def _digest(key: str, content: bytes) -> bytes:
    return hashlib.sha256(key.encode() + content).digest()
