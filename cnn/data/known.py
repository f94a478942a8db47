"""Data sets of four IDX files in a folder, recognised by the files' hashes."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from . import idx, mnist
from .dataset import DataError, Dataset

#: MD5 of the .gz files as they were published, in the order of `idx.FILES`.
PUBLISHED_MD5: dict[str, tuple[str, str, str, str]] = {
    # Xiao, Rasul and Vollgraf, 2017; the README of github.com/zalandoresearch/fashion-mnist
    "fashion-mnist": (
        "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "25c81989df183df01b3e8a0aad5dffbe",
        "bef4ecab320f06d8554ea6380940ec79",
        "bb300cfdad3c16e7a12a480ee83cd310",
    ),
    # Clanuwat et al., 2018; torchvision/datasets/mnist.py
    "kmnist": (
        "bdb82020997e1d708af4cf47b453dcf7",
        "e144d726b3acfaa3e44228e80efcd344",
        "5c965bf0a639b31b8f53240b1b52f4d7",
        "7320c461ea6c1c855c0b718fb2a4b134",
    ),
    # Cohen et al., 2017; EmnistDataFetcher of github.com/deeplearning4j/deeplearning4j
    "emnist-digits": (
        "d2662ecdc47895a6bbfce25de9e9a677",
        "2223fcfee618ac9c89ef20b6e48bcf9e",
        "a159b8b3bd6ab4ed4793c1cb71a2f5cc",
        "8afde66ea51d865689083ba6bb779fac",
    ),
}
# Of a gzip file. EMNIST's 240,000 images have 188 MB.
LARGEST_CONTENT_BYTES = 2**28


def load_folder(directory: Path, name: str = "auto") -> tuple[Dataset, Dataset]:
    """Return the training and the test set of a folder.

    MNIST is recognised by the SHA-256 of its decompressed files, other sets by the MD5 of their .gz
    files as published. A folder of none of them is named "unknown data set", with the first digits
    of a SHA-256 of its four files. The images of EMNIST are transposed: in its files, rows are
    columns.

    Parameters
    ----------
    directory : path
        With four files, plain IDX or gzip of up to 256 MiB of it, named as those of MNIST or
        EMNIST.
    name : str
        The set that it must be, one of `PUBLISHED_MD5`; "auto" takes any.

    Raises
    ------
    DataError
        If files are missing or damaged, some but not all are those of a known set, or the set is
        another one than `name`.
    """
    files = [idx.find(directory, file) for file in idx.FILES]
    there = [file for file in files if file is not None]
    if len(there) < len(files):
        missing = (file for file, found in zip(idx.FILES, files, strict=True) if found is None)
        raise idx.incomplete("the data set", directory, "the given folder", missing)
    contents = [idx.decompressed(content, LARGEST_CONTENT_BYTES) for _, content in there]
    digests = [hashlib.sha256(content).hexdigest() for content, _ in contents]
    if {*digests} & {*mnist.SHA256.values()}:
        if name == "auto":
            # It says what is wrong with the other files, if any.
            return mnist.load_mnist(directory)
        raise DataError(f"{directory} has files of MNIST, expected {name}")
    found = _published(there)
    if found is None:
        found = f"unknown data set {hashlib.sha256(''.join(digests).encode()).hexdigest()[:8]}"
    if name not in ("auto", found):
        raise DataError(f"{directory} has {found}, expected {name} in .gz files as published")
    arrays = []
    for (path, stored), (content, damage) in zip(there, contents, strict=True):
        # A plain file is its own content, of any length.
        if damage or (content is not stored and len(content) > LARGEST_CONTENT_BYTES):
            fault = damage or f", more than {LARGEST_CONTENT_BYTES} bytes"
            raise DataError(f"{path} cannot be decompressed{fault}")
        arrays.append(idx.decode(content, str(path)))
    if found == "emnist-digits":
        for index in (0, 2):
            arrays[index] = np.ascontiguousarray(arrays[index].transpose(0, 2, 1))
    try:
        return Dataset(arrays[0], arrays[1], found), Dataset(arrays[2], arrays[3], found)
    except ValueError as error:
        raise DataError(f"{directory} has no images with a label each: {error}") from error


def _published(files: list[tuple[Path, bytes]]) -> str | None:
    """Return the known set that the files are, or None; DataError if only some of them are."""
    digests = tuple(hashlib.md5(content, usedforsecurity=False).hexdigest() for _, content in files)
    for name, expected in PUBLISHED_MD5.items():
        if not {*digests} & {*expected}:
            continue
        for (path, _), digest, published in zip(files, digests, expected, strict=True):
            if digest != published:
                raise DataError(
                    f"{path} is not that of {name}, as other files there are: it has MD5 {digest}, "
                    f"expected {published}"
                )
        return name
    return None
