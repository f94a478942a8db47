"""Four tiny files in place of MNIST's, with hashes in place of the real ones."""

from __future__ import annotations

import gzip
import hashlib
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cnn.data import Dataset, mnist

TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = mnist.SHA256


def idx(array: np.ndarray[Any, Any]) -> bytes:
    shape = struct.pack(f">{array.ndim}I", *array.shape)
    return bytes([0, 0, 8, array.ndim]) + shape + array.astype(np.uint8).tobytes()


def tiny_mnist() -> dict[str, bytes]:
    """The four files, with 5 training and 3 test images of the real size."""
    random = np.random.default_rng(0)
    contents = {}
    for images, labels, count in ((TRAIN_IMAGES, TRAIN_LABELS, 5), (TEST_IMAGES, TEST_LABELS, 3)):
        contents[images] = idx(random.integers(256, size=(count, 28, 28)))
        contents[labels] = idx(random.integers(10, size=count))
    return contents


CONTENTS = tiny_mnist()
SOUND = {f"{file}.gz": gzip.compress(content) for file, content in CONTENTS.items()}


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def install(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    """Tiny MNIST instead of the real one, `cache` as its cache, no named folder and no mirror."""
    monkeypatch.setattr(mnist, "SHA256", {name: sha256(body) for name, body in CONTENTS.items()})
    monkeypatch.setattr(mnist, "MIRRORS", ())
    monkeypatch.setattr(mnist, "cache_directory", lambda: cache)
    monkeypatch.delenv("MNIST_DIR", raising=False)


def fill(folder: Path, contents: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in contents.items():
        (folder / file).write_bytes(content)
    return folder


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else {}


def assert_tiny_mnist(sets: tuple[Dataset, Dataset]) -> None:
    for dataset, images, labels in zip(
        sets, (TRAIN_IMAGES, TEST_IMAGES), (TRAIN_LABELS, TEST_LABELS), strict=True
    ):
        assert dataset.name == "mnist"
        assert dataset.images.dtype == dataset.labels.dtype == np.uint8
        assert dataset.images.shape == (len(dataset), 28, 28)
        assert dataset.images.tobytes() == CONTENTS[images][16:]
        assert dataset.labels.tobytes() == CONTENTS[labels][8:]
