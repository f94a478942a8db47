"""Labelled images, and checks of them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from kernels.lowlevel import check_unmasked, floating


class DataError(RuntimeError):
    """A data set cannot be used; the message is one sentence for the user."""


# eq=False: comparing arrays element by element has no single truth value.
@dataclass(frozen=True, eq=False)
class Dataset:
    """Images with one class label each.

    Attributes
    ----------
    images : numpy.ndarray or cupy.ndarray
        (N, H, W, C) or (N, H, W), uint8 or floating.
    labels : numpy.ndarray or cupy.ndarray
        (N,), any integer dtype, on the same device as the images.
    name : str
        Name of the data in reports, such as "mnist".

    Raises
    ------
    TypeError
        If images or labels are no array or a masked one, have another dtype, or are on different
        devices.
    ValueError
        If a shape does not fit.
    """

    images: Any
    labels: Any
    name: str = "data"

    def __post_init__(self) -> None:
        _check_arrays(self.images, self.labels, "Dataset")
        if not isinstance(self.name, str):
            raise TypeError(f"Dataset: name: got {self.name!r}, expected a string")

    def __len__(self) -> int:
        return int(self.images.shape[0])

    def check_labels(self, classes: int, argument: str = "data") -> None:
        """Raise ValueError unless every label lies in 0 to `classes` - 1.

        Reads the smallest and the largest label, which waits for a GPU: call it once.
        """
        if len(self) == 0:
            return
        smallest, largest = int(self.labels.min()), int(self.labels.max())
        if smallest < 0 or largest >= classes:
            raise ValueError(
                f"{argument}: labels: got {smallest} to {largest}, "
                f"expected 0 to {classes - 1} for {classes} classes"
            )


def as_dataset(data: Any, argument: str = "data") -> Dataset:
    """Return `data`, a Dataset or a pair (images, labels), as a Dataset that shares its arrays.

    Parameters
    ----------
    data : Dataset or tuple or list
        Images (N, H, W, C) or (N, H, W), uint8 or floating; labels (N,), any integer dtype.
    argument : str
        The caller's name for `data`; errors begin with it.

    Raises
    ------
    TypeError
        If `data` is neither, an element is no array, or a dtype or the device does not fit.
    ValueError
        If the pair has another length than two or a shape does not fit.
    """
    if isinstance(data, Dataset):
        return data
    expected = "expected a Dataset or a pair (images, labels)"
    if not isinstance(data, (tuple, list)):
        raise TypeError(f"{argument}: got {type(data).__name__}, {expected}")
    if len(data) != 2:
        raise ValueError(f"{argument}: got {len(data)} elements, {expected}")
    images, labels = data
    _check_arrays(images, labels, argument)
    return Dataset(images, labels)


def pixel_statistics(images: Any) -> tuple[float, float]:
    """Return mean and standard deviation of uint8 images, in grey levels; 1 for a deviation of 0.

    The sums are exact, in integers. They are taken over parts of the images, since the squares of
    all would need several times the images' memory.
    """
    total = squares = 0
    for images_of_part in _parts(images):
        part = images_of_part.astype(np.uint32)
        total += int(part.sum(dtype=np.int64))
        squares += int((part * part).sum(dtype=np.int64))
    count = max(images.size, 1)
    variance = (squares * count - total * total) / (count * count)
    return total / count, math.sqrt(variance) or 1.0


def finite(images: Any, dtype: Any) -> bool:
    """Whether floating images hold no NaN or infinity, nor a value that is infinite as `dtype`."""
    # CuPy has no min and max of bfloat16, and NumPy's warn of a NaN.
    wide = np.dtype(np.float32) if images.dtype.itemsize == 2 else images.dtype
    parts = (part.astype(wide, copy=False) for part in _parts(images))
    # A NaN anywhere is both the minimum and the maximum.
    extremes = [float(extreme) for part in parts for extreme in (part.min(), part.max())]
    with np.errstate(over="ignore"):
        return all(map(math.isfinite, np.array(extremes).astype(dtype)))


def _parts(images: Any) -> Iterator[Any]:
    """Yield the images in parts of some two million values, or single images."""
    count = max(1, 2**21 // max(1, math.prod(images.shape[1:])))
    for start in range(0, len(images), count):
        yield images[start : start + count]


def channels_last(images: Any) -> Any:
    """Return images (N, H, W) as a view (N, H, W, 1), and images (N, H, W, C) as they are.

    Raises
    ------
    ValueError
        If `images` has another number of axes.
    """
    if images.ndim == 3:
        return images[..., None]
    if images.ndim == 4:
        return images
    raise ValueError(f"images: got shape {images.shape}, expected (N, H, W) or (N, H, W, C)")


def _check_arrays(images: Any, labels: Any, argument: str) -> None:
    for role, array in (("images", images), ("labels", labels)):
        # CuPy's arrays carry NumPy dtypes; a list or a torch tensor does not.
        if not isinstance(getattr(array, "dtype", None), np.dtype) or not hasattr(array, "shape"):
            raise TypeError(
                f"{argument}: {role}: got {type(array).__name__}, expected a NumPy or CuPy array"
            )
        check_unmasked(f"{argument}: {role}", array)
    if images.dtype != np.uint8 and not floating(images.dtype):
        raise TypeError(f"{argument}: images: got {images.dtype}, expected uint8 or floating")
    if labels.dtype.kind not in "iu":
        raise TypeError(f"{argument}: labels: got {labels.dtype}, expected an integer dtype")
    if isinstance(images, np.ndarray) != isinstance(labels, np.ndarray):
        raise TypeError(
            f"{argument}: labels: got an array of {type(labels).__module__}, "
            f"expected one of {type(images).__module__} like images"
        )
    if len(images.shape) not in (3, 4) or 0 in images.shape[1:]:
        raise ValueError(
            f"{argument}: images: got shape {images.shape}, expected (N, H, W) or (N, H, W, C) "
            "with H, W and C at least 1"
        )
    if labels.shape != images.shape[:1]:
        raise ValueError(
            f"{argument}: labels: got shape {labels.shape}, expected ({images.shape[0]},), "
            "one for each image"
        )
