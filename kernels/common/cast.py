"""Conversion of arrays to another floating type."""

from __future__ import annotations

from typing import Any

from ..runtime import Array, as_array
from ..runtime.elementwise import Elementwise

_CAST = Elementwise("cast", "U x", "T y", "A(x)", new=True, U="float16")


def cast(x: Array, dtype: Any, out: Array | None = None) -> Array:
    """Return x in a floating dtype, by a launch, which recordings hold; or x if it has that dtype.

    If `out` is given, an array of x's shape and that dtype, the values are always written there.
    """
    if out is None and x.dtype == dtype:
        return x
    target, x = as_array("x", x)
    y = target.empty(x.shape, dtype) if out is None else out
    _CAST(target, y.dtype, x, y, U=x.dtype)
    return y
