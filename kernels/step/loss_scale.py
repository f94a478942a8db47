"""Loss scaling for fp16 products (Micikevicius et al., "Mixed precision training", 2018)."""

from __future__ import annotations

from typing import Any

from ..common.reduce import accumulator
from ..runtime import Array, Source, Target, as_array
from ..runtime.elementwise import Elementwise

_SOURCE = Source("step/loss_scale.cu")
_MULTIPLY_BY = Elementwise("multiply_by", "raw A factor", "T x", "x = T(A(x) * factor[0]);")
_LARGEST = 2.0**24


def new_state(target: Target, dtype: Any, scale: float = 2.0**16) -> Array:
    """Return the array {scale, unscale, steps} for gradients of a dtype; see loss_scale.cu.

    `scale` is a power of two from 1 to 2**24.
    """
    return target.array([scale, 1 / scale, 0], accumulator(dtype))


def scale_gradient(gradient: Array, state: Array | None) -> None:
    """Multiply the loss's gradient in place by the scale, if there is one."""
    if state is not None:
        target, _ = as_array("gradient", gradient)
        _MULTIPLY_BY(target, gradient.dtype, state[:1], gradient)


def update(
    grad: Array,
    state: Array | None,
    *,
    growth: float = 2.0,
    backoff: float = 0.5,
    interval: int = 2000,
) -> Array | None:
    """Look for infinity and NaN in a scaled gradient, and update the state for the next step.

    Parameters
    ----------
    grad : array
        Gradients of all parameters, contiguous, floating.
    state : array (3,) or None
        What `new_state` returned, updated in place; None if gradients are not scaled.
    growth, backoff : float
        Factors of the scale after `interval` finite gradients, and after one that is not finite;
        powers of two. With both 1, the scale is constant.
    interval : int
        Number of finite gradients before the scale grows.

    Returns
    -------
    array (1,) or None
        Factor of the gradient for `sgd_update` and `adam_update`: 1 / scale, or 0 to skip the step.
        A view of the state.
    """
    if state is None:
        return None
    target, _ = as_array("grad", grad)
    grid = target.stride_grid(grad.size)
    overflow = target.empty((grid[0],), "int32")
    kernel = _SOURCE.kernel("gradient_overflow", target, grad.dtype)
    kernel(grid, target.threads, grad, overflow, grad.size)
    kernel = _SOURCE.kernel("loss_scale_update", target, grad.dtype)
    scalars = (grid[0], growth, backoff, interval, _LARGEST)
    kernel((1, 1, 1), target.threads, overflow, state, *scalars)
    unscale: Array = state[1:2]
    return unscale
