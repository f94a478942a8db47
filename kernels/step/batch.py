"""Gathering a step's batch from a data set on the device, and counting its losses and hits."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..images.augment import frame_bytes
from ..runtime import Array, Source, Target, checks
from ..runtime.types import Shape

_SOURCE = Source("step/batch.cu", pixel_t=np.uint8)


class Augmentation(NamedTuple):
    """Arguments of `kernels.augment`; the offset is that of step 0, and grows by 1 per step."""

    rotate: float
    shift: float
    zoom: float
    seed: int
    offset: int


class Progress(NamedTuple):
    """The counters of a training, on the device.

    Attributes
    ----------
    counters : array (3,) of int64
        Steps counted in the training; images and steps of the current order (epoch).
    totals : array (2,) of float64
        Sum of the images' losses, and number of images classified right.
    """

    counters: Array
    totals: Array


def gather_batch(
    target: Target,
    images: Array,
    labels: Array,
    order: Array,
    counters: Array,
    out_shape: Shape,
    dtype: Any,
    mean: float,
    std: float,
    augmentation: Augmentation | None,
) -> tuple[Array, Array]:
    """Return the next images, normalised to (image - mean) / std, and their labels.

    Parameters
    ----------
    target : Target
        Target of all arrays.
    images : array (N, H, W) or (N, H, W, C)
        uint8 or floating.
    labels, order : array (N,) of int64
        Classes; indices of images, in the order in which they are taken.
    counters : array (3,) of int64
        See `Progress`; the second counts from 0 up to N - out_shape[0].
    out_shape : tuple of int
        Shape of the images returned, with as many elements each.
    dtype : dtype
        Type of the images returned.
    augmentation : Augmentation, optional
        Warps the images as `kernels.augment` does.
    """
    x, chosen = target.empty(out_shape, dtype), target.empty(out_shape[:1], np.int64)
    arrays = (images, labels, order, counters, x, chosen)
    H, W, C = (*images.shape, 1)[1:4]
    elements = checks.count("images: elements of an image", H * W * C)
    grid, threads = (out_shape[0], 1, 1), target.threads
    if augmentation is None:
        kernel = _SOURCE.kernel("gather_batch", target, dtype, pixel_t=images.dtype)
        kernel(grid, threads, *arrays, elements, mean, 1 / std)
        return x, chosen
    kernel = _SOURCE.kernel("gather_augmented_batch", target, dtype, pixel_t=images.dtype)
    frame = frame_bytes(target, images)
    settings = (H, W, C, mean, 1 / std, *augmentation, int(frame > 0))
    kernel(grid, threads, *arrays, *settings, shared=frame)
    return x, chosen


def count_batch(
    target: Target, loss: Array, outputs: Array, labels: Array, progress: Progress
) -> None:
    """Count a step: its mean loss () and the hits of its outputs (rows, classes)."""
    kernel = _SOURCE.kernel("count_batch", target, outputs.dtype)
    arrays = (loss, outputs, labels, progress.totals, progress.counters)
    kernel((1, 1, 1), target.threads, *arrays, *outputs.shape)
