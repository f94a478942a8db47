"""IDX files, plain or gzip, and where they are in a folder."""

from __future__ import annotations

import math
import os
import stat
import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .dataset import DataError

#: Images and labels for training, and those for the test.
FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
_GZIP = b"\x1f\x8b"  # begins each member of a gzip file


def decode(content: bytes, source: str = "IDX data") -> NDArray[np.uint8]:
    """Return the uint8 array of an IDX file (format: "THE IDX FILE FORMAT", MNIST's home page).

    Parameters
    ----------
    content : bytes
        The whole file, decompressed.
    source : str
        Name of the file in messages.

    Raises
    ------
    DataError
        If the header is no IDX header, the elements are not uint8, the length does not fit, or
        NumPy has no arrays of that shape.
    """
    if len(content) < 4 or content[:2] != b"\0\0" or content[3] == 0:
        raise DataError(f"{source} is not an IDX file: it begins with 0x{content[:4].hex()}")
    if content[2] != 0x08:
        raise DataError(f"{source} has IDX type 0x{content[2]:02x}, expected 0x08, uint8")
    header_size = 4 + 4 * content[3]
    if len(content) < header_size:
        raise DataError(f"{source} ends within its IDX header of {header_size} bytes")
    shape = struct.unpack_from(f">{content[3]}I", content, 4)
    expected_size = header_size + math.prod(shape)
    if len(content) != expected_size:
        raise DataError(
            f"{source} announces shape {shape}, {expected_size} bytes, but has {len(content)} bytes"
        )
    # Copied: an array over bytes is read-only, and DLPack does not export such arrays.
    array: NDArray[np.uint8] = np.frombuffer(content, np.uint8, offset=header_size).copy()
    try:
        return array.reshape(shape)
    except ValueError as error:  # too many axes, or no elements along huge ones
        raise DataError(f"{source} announces a shape that no array has: {error}") from error


def decompressed(content: bytes, most: int) -> tuple[bytes, str]:
    """Return the decompressed content, and the fault of the gzip stream or "".

    The first bytes tell whether it is gzip: a browser may decompress a file and keep its name. Of a
    damaged stream the part before the damage is returned, so that an error can show its hash; of
    one that is longer than `most` bytes, somewhat more than these.
    """
    if not content.startswith(_GZIP):
        return content, ""
    parts: list[bytes] = []
    size = 0
    try:
        for part in _inflated(content):
            parts.append(part)
            size += len(part)
            if size > most:
                break
    except (EOFError, zlib.error) as error:
        return b"".join(parts), f", damaged gzip: {error}"
    return b"".join(parts), ""


def _inflated(content: bytes) -> Iterator[bytes]:
    """Yield the content of a gzip file, part by part.

    Bytes after the last member are ignored, as gzip(1) does.
    """
    while content.startswith(_GZIP):
        member = zlib.decompressobj(wbits=31)  # 31: with gzip's header and checksum
        while not member.eof:
            part = member.decompress(content, 2**22)
            if not part and not member.eof:
                raise EOFError("Compressed file ended before its end-of-stream mark")
            yield part
            content = member.unconsumed_tail
        content = member.unused_data


def candidates(folder: Path, file: str) -> list[Path]:
    """Return the paths at which one of `FILES` is looked for in a folder, in order."""
    # The second is common among copies, the third EMNIST's.
    names = file, file.replace("-idx", ".idx"), f"emnist-digits-{file.replace('t10k', 'test')}"
    return [folder / f"{name}{suffix}" for name in names for suffix in ("", ".gz")]


def find(folder: Path, file: str) -> tuple[Path, bytes] | None:
    """Return path and bytes of one of `FILES` in a folder, or None if it is not there.

    Raises
    ------
    DataError
        If it cannot be read, or is no regular file.
    """
    unusable = None
    for path in candidates(folder, file):
        try:
            regular = stat.S_ISREG(os.stat(path).st_mode)
            content = path.read_bytes() if regular else None
        except (FileNotFoundError, NotADirectoryError):
            if path.is_symlink():
                unusable = unusable or f"{path} is a link to a file that is not there"
            continue
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}") from error
        if content is not None:
            return path, content
        unusable = unusable or f"{path} is {'a folder' if path.is_dir() else 'no regular file'}"
    if unusable is not None:
        raise DataError(unusable)
    return None


def incomplete(data: str, folder: Path, origin: str, missing: Iterable[str]) -> DataError:
    """Return the error for a folder that lacks some of `FILES`.

    `origin` says how the folder was named, such as "the given folder".
    """
    state = "" if folder.is_dir() else ", which is not a folder"
    return DataError(
        f"{data} is incomplete: looked in {origin} {folder}{state}, and did not find "
        f"{', '.join(missing)} (plain or .gz)"
    )
