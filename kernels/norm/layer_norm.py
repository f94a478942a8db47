"""Layer normalisation and its gradient."""

from __future__ import annotations

from typing import NamedTuple

from ..common.channels import Channels
from ..common.reduce import accumulator
from ..common.rows import row_launch
from ..runtime import Array, Source, Target, checks
from .batchnorm import gradient_sums, saved_statistic

# The defaults are for rows of any length.
_SOURCE = Source("norm/layer_norm.cu", ROW_THREADS=0, ROW_SPANS=0, ROW_WHOLE=0)
# Its rows are kept; so the sums of columns have at least one span.
_GRADIENTS = Source("norm/layer_norm_gradients.cu", ROW_THREADS=0, ROW_SPANS=1, ROW_WHOLE=0)
# Rows of a chunk: at least so many, since each chunk has sums to write, and at most so many, which
# one register adds up. On cuda there are about as many chunks as run at once.
_LEAST_ROWS, _MOST_ROWS, _CHUNKS = 8, 2048, 256
# On cpu a chunk of so many elements stays in a core's own cache; all cores have at least one chunk.
_CHUNK, _LEAST_CHUNKS = 2**15, 4


class LayerNormSaved(NamedTuple):
    """What `layer_norm_backward` needs of `layer_norm`.

    Attributes
    ----------
    mean, inv_std : array (rows,)
        Of each row of x as (rows, C); float64 for float64, else float32.
    """

    mean: Array
    inv_std: Array


def layer_norm(
    x: Array, gamma: Array, beta: Array, *, eps: float = 1e-5
) -> tuple[Array, LayerNormSaved]:
    """Normalise x over its last axis, then scale and shift.

    Source: Ba, Kiros and Hinton, "Layer Normalization", 2016; semantics as in PyTorch.

    Parameters
    ----------
    x : array (..., C)
        Floating.
    gamma, beta : array (C,)
        Scale and shift.
    eps : float
        Added to the variance, which is the biased one.

    Returns
    -------
    y : array (..., C)
    saved : LayerNormSaved
        For `layer_norm_backward`.

    Raises
    ------
    TypeError, ValueError
        If dtypes, devices, shapes or eps do not fit.
    """
    target, (x, gamma, beta) = checks.arrays(x=x, gamma=gamma, beta=beta)
    eps = checks.number("eps", eps, least=0)
    rows, C = _rows(x)
    checks.shape("gamma", gamma, (C,), "one value per column")
    checks.shape("beta", beta, (C,), "one value per column")
    wide = accumulator(x.dtype)
    saved = LayerNormSaved(target.empty((rows,), wide), target.empty((rows,), wide))
    y = target.empty(x.shape, x.dtype)
    launch = row_launch(target, rows, 64, x, gamma, beta, y)
    kernel = _SOURCE.kernel("layer_norm_forward", target, x.dtype, **launch.constants)
    kernel(*launch.geometry, x, gamma, beta, y, *saved, rows, C, eps)
    return y, saved


def layer_norm_backward(
    dy: Array,
    x: Array,
    gamma: Array,
    saved: LayerNormSaved,
    *,
    out_dgamma: Array | None = None,
    out_dbeta: Array | None = None,
) -> tuple[Array, Array, Array]:
    """Return the gradients (dx, dgamma, dbeta) of `layer_norm`.

    Parameters
    ----------
    dy : array (..., C)
        Gradient of the result.
    x, gamma
        The arguments of `layer_norm`.
    saved : LayerNormSaved
        What it returned.
    out_dgamma, out_dbeta : array (C,), optional
        C-contiguous arrays of x's dtype that dgamma and dbeta are written to.

    Raises
    ------
    TypeError, ValueError
        If dtypes, devices or shapes do not fit.
    """
    if not isinstance(saved, LayerNormSaved):
        raise TypeError(f"saved: got {type(saved).__name__}, expected a LayerNormSaved")
    target, (dy, x, gamma) = checks.arrays(dy=dy, x=x, gamma=gamma)
    rows, C = _rows(x)
    checks.shape("dy", dy, x.shape, "the shape of x")
    checks.shape("gamma", gamma, (C,), "one value per column")
    mean, inv_std = (
        saved_statistic(target, f"saved.{name}", value, x.dtype, (rows,), "one value per row")
        for name, value in saved._asdict().items()
    )
    others = {"dy": dy, "x": x, "gamma": gamma, "mean": mean, "inv_std": inv_std}
    out_dgamma = checks.result(target, "out_dgamma", out_dgamma, (C,), x.dtype, others)
    others["out_dgamma"] = out_dgamma
    out_dbeta = checks.result(target, "out_dbeta", out_dbeta, (C,), x.dtype, others)

    dx = target.empty(x.shape, x.dtype)
    channels = Channels(target, C, x.dtype, dy, x)
    launch = row_launch(target, rows, 16, x, dy, gamma, dx)
    together = target.in_lanes or launch.spans > 0
    rows_per_chunk, count = _chunks(target, rows, C) if together else channels.chunks(rows)
    partial = target.empty((2, count, C), accumulator(x.dtype))
    statistics, sums = (mean, inv_std), (partial[0], partial[1])
    sizes = (rows, C, rows_per_chunk)
    if together:
        kernel = _GRADIENTS.kernel("layer_norm_gradients", target, x.dtype, **launch.constants)
        geometry = (count, 1, 1), launch.geometry[1]
        kernel(*geometry, dy, x, gamma, *statistics, dx, *sums, *sizes)
    else:
        launch = row_launch(target, rows, 32, x, dy, gamma, dx)
        kernel = _SOURCE.kernel("layer_norm_input_gradient", target, x.dtype, **launch.constants)
        kernel(*launch.geometry, dy, x, gamma, *statistics, dx, rows, C)
        kernel = _SOURCE.kernel("layer_norm_gradient_chunks", target, x.dtype, **channels.constants)
        kernel(channels.chunk_grid(count), target.threads, dy, x, *statistics, *sums, *sizes)
    _, dbeta, dgamma = gradient_sums(target, partial, x.dtype, out_dbeta, out_dgamma)
    return dx, dgamma, dbeta


def _chunks(target: Target, rows: int, C: int) -> tuple[int, int]:
    """Return (rows per chunk, chunks). They depend on shapes alone, and so do results."""
    if target.in_lanes:
        in_cache = max(_LEAST_ROWS, min(_CHUNK // C, _MOST_ROWS))
        per_chunk = min(in_cache, max(1, -(-rows // _LEAST_CHUNKS)))
    else:
        per_chunk = max(_LEAST_ROWS, -(-rows // _CHUNKS))
    return per_chunk, -(-rows // per_chunk)


def _rows(x: Array) -> tuple[int, int]:
    if x.ndim < 1 or not x.shape[-1]:
        raise ValueError(f"x: got shape {tuple(x.shape)}, expected (..., C) with a C of 1 or more")
    C = x.shape[-1]
    return checks.count("x: rows", x.size // C), C
