"""Batch normalisation folded into the convolution before it, for inference."""

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
    """Return filters and biases with a batch normalisation folded in, and which of them changed.

    Parameters
    ----------
    w : array (F, KH, KW, C)
        Filters.
    b : array (F,) or None
        Biases.
    gamma, beta, mean, variance : array (F,) or None
        Parameters and running statistics of the batch normalisation; all None without one.
    eps : float
        Added to the variance.

    Returns
    -------
    folded, shift : array (F, KH, KW, C), (F,)
        Filters and biases; in a recording, they stay in place from replay to replay.
    changed : array (F,) of int32
        changed[f] is nonzero if filter f differs bitwise from the last replay of the recording;
        outside of a recording, and at its first run, it is nonzero for all.
    """
    arrays = {"w": w, "b": b, "gamma": gamma, "beta": beta, "mean": mean, "variance": variance}
    target, taken = checks.arrays(**arrays, optional=("b", "gamma", "beta", "mean", "variance"))
    F, K = w.shape[0], w[0].size
    folded, shift = target.kept(w.shape, w.dtype), target.kept((F,), w.dtype)
    changed = target.kept((F,), "int32")
    with target.on():
        folded.fill(0)  # the first launch reads it to compare
        changed.fill(-1)
    kernel = _SOURCE.kernel("fold_norm", target, w.dtype)
    grid = target.stride_grid(w.size) if target.in_lanes else (F, 1, 1)
    kernel(grid, target.threads, *taken, folded, shift, changed, F, K, eps)
    return folded, shift, changed
