"""Batch-norm folded into the convolution before it, for inference."""

from __future__ import annotations

from .runtime import Array, Source, checks

_SOURCE = Source("fold.cu")


def fold_norm(
    w: Array,
    b: Array | None,
    gamma: Array,
    beta: Array,
    mean: Array,
    variance: Array,
    eps: float,
) -> tuple[Array, Array]:
    """Return filters of w's shape (F, KH, KW, C) and biases (F,) that do the batch-norm's work.

    The others are (F,) each, b may be None; mean and variance are the running statistics.
    """
    arrays = {"w": w, "b": b, "gamma": gamma, "beta": beta, "mean": mean, "variance": variance}
    target, taken = checks.arrays(**arrays, optional=("b",))
    F, K = w.shape[0], w[0].size
    folded, shift = target.empty(w.shape, w.dtype), target.empty((F,), w.dtype)
    kernel = _SOURCE.kernel("fold_norm", target, w.dtype)
    kernel(target.stride_grid(w.size), target.threads, *taken, folded, shift, F, K, eps)
    return folded, shift
