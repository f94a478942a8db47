"""ReLU and its gradient."""

from __future__ import annotations

from ..runtime import Array, checks
from ..runtime.elementwise import Elementwise

_RELU = Elementwise("relu_forward", "T x", "T y", "x < T(0) ? T(0) : x", new=True)
_RELU_BACKWARD = Elementwise(
    "relu_backward", "T dy, T y", "T dx", "y <= T(0) ? T(0) : dy", new=True
)


def relu(x: Array) -> Array:
    """Return max(x, 0), NaN staying NaN; any shape, floating.

    Raises
    ------
    TypeError
        If x is not floating.
    """
    target, (x,) = checks.arrays(x=x)
    y = target.empty(x.shape, x.dtype)
    _RELU(target, x.dtype, x, y)
    return y


def relu_backward(dy: Array, y: Array) -> Array:
    """Return dx of `relu`, y being its result: dy, and 0 where y <= 0.

    Raises
    ------
    TypeError, ValueError
        If dtypes, devices or shapes do not fit.
    """
    target, (dy, y) = checks.arrays(dy=dy, y=y)
    checks.shape("y", y, dy.shape, "the shape of dy")
    dx = target.empty(dy.shape, dy.dtype)
    _RELU_BACKWARD(target, dy.dtype, dy, y, dx)
    return dx
