"""Normalisation of images by mean and standard deviation."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..runtime import Array, checks
from ..runtime.elementwise import Elementwise

_NORMALIZE = Elementwise(
    "normalize",
    "U image",
    "T y",
    "(A(image) - mean) * inv_std",
    scalars="A mean, A inv_std",
    new=True,
    U=np.uint8,
)


def normalize(images: Array, mean: float, std: float, dtype: Any = np.float32) -> Array:
    """Return (images - mean) / std in a floating dtype; any shape, uint8 or floating.

    It is computed in float64 for a result of float64, else in float32: there wider images are
    rounded first.

    Raises
    ------
    TypeError, ValueError
        If a dtype or parameter does not fit.
    """
    target, images = checks.images("images", images)
    out = checks.floating_type("dtype", dtype, target)
    mean, std = checks.number("mean", mean), checks.number("std", std)
    if std <= 0:
        raise ValueError(f"std: got {std}, expected more than 0")
    y = target.empty(images.shape, out)
    _NORMALIZE(target, out, images, mean, 1 / std, y, U=images.dtype)
    return y
