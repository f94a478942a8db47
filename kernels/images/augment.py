"""Affine warps of images, given or random."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..common.reduce import accumulator, accumulator_bytes
from ..runtime import Array, Source, Target, checks
from ..runtime.types import GRID_YZ_MAX

_SOURCE = Source("images/augment.cu", pixel_t=np.uint8)


def affine_warp(images: Array, matrix: Array, *, fill: float = 0) -> Array:
    """Return images warped by one affine map each, interpolated bilinearly.

    Parameters
    ----------
    images : array (N, H, W, C) or (N, H, W)
        uint8 or floating.
    matrix : array (N, 2, 3)
        float32 or float64. Maps an output pixel (x, y, 1) to a position (x, y) in the input, in
        pixels from the centre of the top left pixel.
    fill : float
        Value of everything outside the image.

    Returns
    -------
    array
        Of images' shape and dtype; uint8 is rounded to nearest.

    Raises
    ------
    TypeError, ValueError
        If dtypes, devices or shapes do not fit.
    """
    target, images = _images(images)
    matrix = checks.of_type(target, "matrix", matrix, "float32 or float64", "f")
    if matrix.dtype not in (np.float32, np.float64):
        raise TypeError(f"matrix: got {matrix.dtype}, expected float32 or float64")
    checks.shape("matrix", matrix, (images.shape[0], 2, 3), "(N, 2, 3), one matrix per image")
    most = float(np.finfo(accumulator(images.dtype)).max)  # infinity times a share of 0 is NaN
    return _warp(target, images, matrix, checks.number("fill", fill, least=-most, most=most))


def augment(
    images: Array,
    *,
    rotate: float = 0,
    shift: float = 0,
    zoom: float = 0,
    seed: int,
    offset: int = 0,
) -> Array:
    """Return images each rotated, shifted and zoomed at random about their centre.

    Parameters
    ----------
    images : array (N, H, W, C) or (N, H, W)
        uint8 or floating.
    rotate : float
        Angles are uniform in [-rotate, rotate] degrees.
    shift : float
        Shifts along each axis are uniform in [-shift, shift] pixels.
    zoom : float
        In [0, 1). Magnifications are uniform in [1 - zoom, 1 + zoom].
    seed, offset : int
        In [0, 2**64). The maps depend on them and the image's index alone; give each call another
        offset.

    Returns
    -------
    array
        Of images' shape and dtype; 0 outside the image.

    Raises
    ------
    TypeError, ValueError
        If dtype, shape or parameters do not fit.
    """
    target, images = _images(images)
    rotate = checks.number("rotate", rotate, least=0)
    shift = checks.number("shift", shift, least=0)
    zoom = checks.number("zoom", zoom, least=0, below=1)
    seed, offset = checks.word("seed", seed), checks.word("offset", offset)
    N, H, W = images.shape[:3]
    matrix = target.empty((N, 2, 3), np.float32)
    kernel = _SOURCE.kernel("random_matrices", target, matrix.dtype, pixel_t=images.dtype)
    ranges = (rotate, shift, zoom, seed, offset)
    kernel(target.stride_grid(N), target.threads, matrix, N, H, W, *ranges)
    return _warp(target, images, matrix, 0.0)


def _images(images: Any) -> tuple[Target, Array]:
    target, array = checks.images("images", images)
    if array.ndim not in (3, 4):
        raise ValueError(f"images: got shape {array.shape}, expected (N, H, W, C) or (N, H, W)")
    return target, array


def _warp(target: Target, images: Array, matrix: Array, fill: float) -> Array:
    N, H, W = images.shape[:3]
    C = images.shape[3] if images.ndim == 4 else 1
    checks.count("images: elements of an image", H * W * C)
    out = target.empty(images.shape, images.dtype)
    kernel = _SOURCE.kernel("warp_images", target, matrix.dtype, pixel_t=images.dtype)
    frame = frame_bytes(target, images)
    parts = 1 if frame else min(target.stride_grid(H * W * C)[0], H, GRID_YZ_MAX)
    arguments = (images, matrix, out, H, W, C, fill, int(frame > 0))
    kernel((N, parts, 1), target.threads, *arguments, shared=frame)
    return out


def frame_bytes(target: Target, images: Array) -> int:
    """Return the bytes of shared memory for Framed of ``warp.cuh``, or 0 to do without it."""
    H, W, C = (*images.shape, 1)[1:4]
    size = (H + 3) * (W + 3) * C * accumulator_bytes(images.dtype)
    return size if size <= target.near_bytes else 0
