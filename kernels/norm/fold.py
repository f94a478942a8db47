"""Batch-norm folded into the convolution before it, for inference."""

from __future__ import annotations

from ..runtime import Array, Source, checks

_SOURCE = Source("norm/fold.cu")


def fold_norm(
    w: Array,
    b: Array | None,
    gamma: Array | None = None,
    beta: Array | None = None,
    mean: Array | None = None,
    variance: Array | None = None,
    eps: float = 0.0,
) -> tuple[Array, Array, Array]:
    """Return filters of w's shape (F, KH, KW, C) and biases (F,) that do the batch-norm's work.

    The third array (F,) of int32 tells which filters are others, in any bit, than at the last
    replay of the recording that this is part of; outside of one, or at first, all are. The results
    stay where they are from replay to replay.

    The others are (F,) each; b may be None, and so may all after it, without a batch-norm. mean and
    variance are the running statistics.
    """
    arrays = {"w": w, "b": b, "gamma": gamma, "beta": beta, "mean": mean, "variance": variance}
    target, taken = checks.arrays(**arrays, optional=("b", "gamma", "beta", "mean", "variance"))
    F, K = w.shape[0], w[0].size
    folded, shift = target.kept(w.shape, w.dtype), target.kept((F,), w.dtype)
    changed = target.kept((F,), "int32")
    with target.on():
        folded.fill(0)  # the first launch compares with it, too
        changed.fill(-1)
    kernel = _SOURCE.kernel("fold_norm", target, w.dtype)
    grid = target.stride_grid(w.size)
    kernel(grid, target.threads, *taken, folded, shift, changed, F, K, eps)
    return folded, shift, changed
