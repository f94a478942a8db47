"""MNIST's files and their hashes, from a folder, the per-user cache or a mirror."""

from __future__ import annotations

import hashlib
import os
import queue
import tempfile
import threading
from pathlib import Path
from typing import Any

import platformdirs

from ..files import write_whole
from . import idx
from .dataset import DataError, Dataset

MIRRORS: tuple[str, ...] = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
# Of the decompressed content: two mirrors may compress the same file differently.
SHA256: dict[str, str] = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
DOWNLOAD_TIMEOUT_SECONDS = 5.0
# The largest file has 47 MB. A longer one is not MNIST's, and is not read to its end.
LARGEST_CONTENT_BYTES = 64 * 2**20


class DataNotFoundError(DataError):
    """MNIST was not found and could not be downloaded; `reason` says why in a few words."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message, reason)  # of which pickle makes it again
        self.reason = reason

    def __str__(self) -> str:
        """Return the message."""
        return str(self.args[0])


def load_mnist(directory: str | os.PathLike[str] | None = None) -> tuple[Dataset, Dataset]:
    """Return MNIST's training and test set (LeCun, Cortes and Burges, 1998).

    Looked for in `directory`, else in $MNIST_DIR, each of which must hold all four files; else in
    the per-user cache, which is filled from HTTPS mirrors. A file may be plain IDX or gzip, and
    counts only if its decompressed content has the known SHA-256.

    Parameters
    ----------
    directory : path, optional
        Folder with the four files, named such as train-images-idx3-ubyte, or
        train-images.idx3-ubyte, or either with .gz.

    Returns
    -------
    train, test : Dataset
        Images uint8 (60000, 28, 28) and (10000, 28, 28), labels uint8.

    Raises
    ------
    DataNotFoundError
        If no folder was named, and the cache lacks files that no mirror gave.
    DataError
        If a named folder lacks files, or a file is truncated, corrupt or another than MNIST's.
    """
    folder, origin = _named_folder(directory)
    contents = _read_cache() if folder is None else _read_named(folder, origin)
    arrays = {file: idx.decode(content, file) for file, content in contents.items()}
    return (
        Dataset(arrays["train-images-idx3-ubyte"], arrays["train-labels-idx1-ubyte"], "mnist"),
        Dataset(arrays["t10k-images-idx3-ubyte"], arrays["t10k-labels-idx1-ubyte"], "mnist"),
    )


def cache_directory() -> Path | None:
    """Return the folder of the per-user cache that holds downloaded MNIST files.

    None if the user has no home folder, as in a container whose user has no entry in passwd.
    """
    try:
        folder = platformdirs.user_cache_path("cnn-kernels", appauthor=False)
    except RuntimeError:
        return None
    # Older releases of platformdirs then return a path that begins with ~.
    return folder / "mnist" if folder.is_absolute() else None


def files_there(directory: str | os.PathLike[str] | None = None) -> list[Path]:
    """Return the files that `load_mnist` would read; outputs must not overwrite them."""
    folder = _named_folder(directory)[0] or cache_directory()
    if folder is None:
        return []
    return [
        path for file in SHA256 for path in idx.candidates(folder, file) if os.path.lexists(path)
    ]


def _verified(content: bytes, file: str, source: str) -> bytes:
    """Return the decompressed content; raise DataError if it is not that of MNIST's `file`."""
    content, damage = idx.decompressed(content, LARGEST_CONTENT_BYTES)
    found = hashlib.sha256(content).hexdigest()
    if damage or found != SHA256[file]:
        raise DataError(
            f"{source} is not MNIST's {file}: its decompressed content has SHA-256 {found}, "
            f"expected {SHA256[file]} ({len(content)} bytes{damage})"
        )
    return content


def _named_folder(directory: str | os.PathLike[str] | None) -> tuple[Path | None, str]:
    """Return the folder that the user named, if any, and how messages call it."""
    environment = os.environ.get("MNIST_DIR")
    if directory is not None:
        return Path(os.path.expanduser(directory)), "the given folder"
    if environment:
        return Path(os.path.expanduser(environment)), "$MNIST_DIR,"
    return None, ""


def _read(folder: Path, file: str) -> bytes | None:
    """Return the verified content of MNIST's `file` in `folder`, or None if it is not there."""
    found = idx.find(folder, file)
    return None if found is None else _verified(found[1], file, str(found[0]))


def _read_named(folder: Path, origin: str) -> dict[str, bytes]:
    """Return the four files of a folder that the user named; all must be there."""
    contents = {file: content for file in SHA256 if (content := _read(folder, file)) is not None}
    if len(contents) < len(SHA256):
        missing = (file for file in SHA256 if file not in contents)
        raise idx.incomplete("MNIST", folder, origin, missing)
    return contents


def _read_cache() -> dict[str, bytes]:
    """Return the four files from the cache, after downloading those that are missing or damaged."""
    folder = cache_directory()
    if folder is None:
        reason = "there is no home folder to keep it in: set HOME or XDG_CACHE_HOME"
        raise DataNotFoundError(
            f"MNIST's four files ({', '.join(SHA256)}) were not found: no folder was named with "
            f"--data or $MNIST_DIR, and {reason}",
            reason,
        )
    contents: dict[str, bytes] = {}
    damages: list[str] = []
    for file in SHA256:
        try:
            content = _read(folder, file)
        except DataError as error:
            damages.append(str(error))
        else:
            if content is not None:
                contents[file] = content
    reasons = _download_missing(contents, folder) if len(contents) < len(SHA256) else []
    missing = [file for file in SHA256 if file not in contents]
    if not missing:
        return contents
    reason = "; ".join(reasons)
    if damages:
        raise DataError(
            f"{damages[0]}, and a new copy could not be downloaded ({reason}): delete the file or "
            "go online"
        )
    lacking = ", ".join(missing) if contents else "all of them"
    raise DataNotFoundError(
        f"MNIST's four files ({', '.join(SHA256)}) were not found: no folder was named with --data "
        f"or $MNIST_DIR, the cache {folder} lacks {lacking}, and they could not be downloaded "
        f"({reason})",
        reason,
    )


def _download_missing(contents: dict[str, bytes], folder: Path) -> list[str]:
    """Add missing files to `contents` and to the cache; return why mirrors or the cache failed.

    A mirror that does not answer is not asked again, so that being offline costs one timeout per
    mirror. One that answers with a bad file may still have the others.
    """
    reasons: list[str] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Find out before downloading whether the folder can be written. The file has no name, so
        # even a killed process leaves nothing behind.
        with tempfile.TemporaryFile(dir=folder):
            pass
        for mirror in MIRRORS:
            failures: list[str] = []
            for file in [file for file in SHA256 if file not in contents]:
                try:
                    content = _fetch(f"{mirror}{file}.gz", file)
                except DataError as error:
                    failures.append(str(error))
                    continue
                except ConnectionError as error:
                    failures.append(str(error))
                    break
                write_whole(folder / file, content)
                contents[file] = content
            reasons.extend(failures[:1])
    except OSError as error:
        return [f"the cache folder {folder} cannot be written: {error.strerror or error}"]
    return reasons


def _fetch(url: str, file: str) -> bytes:
    """Return the verified content behind `url`.

    DataError: the server answered, but not with the file. ConnectionError: it did not answer.
    """
    # Imported here: slow, and seldom needed.
    from http.client import HTTPException
    from urllib.error import HTTPError
    from urllib.request import urlopen

    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers.put(urlopen(url, timeout=DOWNLOAD_TIMEOUT_SECONDS))
        except (OSError, HTTPException) as error:
            answers.put(error)

    # In a thread: urlopen's timeout excludes the look-up of the server's name, and starts anew for
    # each of its addresses; without a network that adds up to minutes.
    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=DOWNLOAD_TIMEOUT_SECONDS)
        if isinstance(answer, Exception):
            raise answer
        with answer:
            content = answer.read(LARGEST_CONTENT_BYTES)
    except HTTPError as error:
        error.close()
        raise DataError(f"{url}: {error.code} {error.reason}") from error
    except queue.Empty as error:
        raise ConnectionError(f"{url}: no answer in {DOWNLOAD_TIMEOUT_SECONDS:g} s") from error
    except (OSError, HTTPException) as error:
        cause = getattr(error, "reason", error)  # what a URLError wraps
        raise ConnectionError(f"{url}: {getattr(cause, 'strerror', None) or cause}") from error
    return _verified(content, file, url)
