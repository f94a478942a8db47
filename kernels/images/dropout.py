"""Dropout and its gradient."""

from __future__ import annotations

import numpy as np

from ..runtime import Array, Source, checks
from ..runtime.recording import stepped

_SOURCE = Source("images/dropout.cu")


def dropout(x: Array, p: float, *, seed: int, offset: int = 0) -> tuple[Array, Array]:
    """Zero each element of x with probability p and scale the rest by 1 / (1 - p).

    Parameters
    ----------
    x : array
        Any shape, floating.
    p : float
        In [0, 1).
    seed, offset : int
        In [0, 2**64). The mask depends on them and the element's index alone, and is the same on
        every target; give each call another offset.

    Returns
    -------
    y : array
        Of x's shape and dtype.
    mask : array of uint8
        1 where x was kept.

    Raises
    ------
    TypeError, ValueError
        If dtype or parameters do not fit.
    """
    target, (x,) = checks.arrays(x=x)
    p = checks.number("p", p, least=0, below=1)
    seed, offset = checks.word("seed", seed), checks.word("offset", offset)
    y, mask = target.empty(x.shape, x.dtype), target.empty(x.shape, np.uint8)
    kernel = _SOURCE.kernel("dropout_forward", target, x.dtype)
    start, counter = stepped(offset)
    items = x.size if target.in_lanes else -(-x.size // 4)  # four of a thread
    kernel(target.stride_grid(items), target.threads, x, y, mask, x.size, p, seed, start, counter)
    return y, mask


def dropout_backward(dy: Array, mask: Array, p: float) -> Array:
    """Return dx of `dropout` for its mask and p: dy / (1 - p) where the mask is 1.

    Raises
    ------
    TypeError, ValueError
        If dtypes, devices, shapes or p do not fit.
    """
    target, (dy,) = checks.arrays(dy=dy)
    p = checks.number("p", p, least=0, below=1)
    mask = checks.of_type(target, "mask", mask, "uint8", "u")
    if mask.dtype != np.uint8:
        raise TypeError(f"mask: got {mask.dtype}, expected uint8")
    checks.shape("mask", mask, dy.shape, "the shape of dy")
    dx = target.empty(dy.shape, dy.dtype)
    kernel = _SOURCE.kernel("dropout_backward", target, dy.dtype)
    kernel(target.stride_grid(dy.size), target.threads, dy, mask, dx, dy.size, p)
    return dx
