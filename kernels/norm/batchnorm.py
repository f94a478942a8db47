"""Batch normalisation and its gradient."""

from __future__ import annotations

from typing import Any, NamedTuple

from ..common.channels import Channels
from ..common.moments import Moments
from ..common.reduce import accumulator, accumulator_bytes
from ..runtime import Array, Kernel, Source, Target, as_array, checks
from ..runtime.types import Shape

_SOURCE = Source("norm/batchnorm.cu", stat_t="float32")


class BatchNormSaved(NamedTuple):
    """What `batch_norm_backward` needs of `batch_norm`.

    Attributes
    ----------
    mean, inv_std : array (C,)
        The statistics used; float64 for float64, else float32.
    training : bool
        Whether they are the batch's, and so depend on x.
    """

    mean: Array
    inv_std: Array
    training: bool


def batch_norm(
    x: Array,
    gamma: Array,
    beta: Array,
    running_mean: Array,
    running_var: Array,
    *,
    training: bool,
    momentum: float = 0.1,
    eps: float = 1e-5,
    relu: bool = False,
) -> tuple[Array, BatchNormSaved]:
    """Normalise x over all but its last axis, then scale, shift and, if `relu`, clip at zero.

    Source: Ioffe and Szegedy, "Batch Normalization", 2015; running statistics as in PyTorch.

    Parameters
    ----------
    x : array (..., C)
        Floating; two dimensions or more.
    gamma, beta : array (C,)
        Scale and shift.
    running_mean, running_var : array (C,)
        Of x's dtype, or float32 beside narrower ones. With `training`, updated in place: running =
        (1 - momentum) * running + momentum * batch, with the unbiased variance. Without, used
        instead of the batch's.
    training : bool
        Whether to normalise by the batch's mean and biased variance.
    momentum : float
        In [0, 1].
    eps : float
        Added to the variance.
    relu : bool
        Clip the result below at zero.

    Returns
    -------
    y : array (..., C)
    saved : BatchNormSaved
        For `batch_norm_backward`.

    Raises
    ------
    TypeError, ValueError
        If dtypes, devices, shapes or parameters do not fit, or a batch to train on has only one
        value per channel, so that it has no variance.

    Notes
    -----
    An empty batch leaves the running statistics as they are. In float16 a variance above 65504
    becomes infinite, and small changes are lost: let them be float32, as the saved ones are then.
    """
    if training:
        checks.in_place("running_mean", running_mean)
        checks.in_place("running_var", running_var)
    target, (x, gamma, beta) = checks.arrays(x=x, gamma=gamma, beta=beta)
    running_mean, running_var = running(target, x, running_mean, running_var)
    taken = (x, gamma, beta, running_mean, running_var)
    momentum = checks.number("momentum", momentum, least=0, most=1)
    eps = checks.number("eps", eps, least=0)
    _, C = _rows(x)
    for name, array in zip(
        ("gamma", "beta", "running_mean", "running_var"), taken[1:], strict=True
    ):
        checks.shape(name, array, (C,), "one value per channel")
    if training:
        written = {"running_mean": running_mean, "running_var": running_var}
        checks.apart(target, written, {"x": x, "gamma": gamma, "beta": beta})
    return forward(*taken, training=training, momentum=momentum, eps=eps, relu=bool(relu))


def forward(
    x: Array,
    gamma: Array,
    beta: Array,
    running_mean: Array,
    running_var: Array,
    *,
    training: bool,
    momentum: float,
    eps: float,
    relu: bool,
    moments: Moments | None = None,
) -> tuple[Array, BatchNormSaved]:
    """Do what `batch_norm` does; if the `moments` of x are given, do not read x for them."""
    target, (x,) = checks.arrays(x=x)
    rows, C = _rows(x)
    saved = statistics(
        target,
        x,
        running_mean,
        running_var,
        training=training,
        momentum=momentum,
        eps=eps,
        moments=moments,
    )
    y = target.empty(x.shape, x.dtype)
    arrays = (x, gamma, beta, saved.mean, saved.inv_std, y)
    channels = Channels(target, C, x.dtype, *arrays)
    kernel = _kernel("batch_norm_apply", target, x.dtype, **channels.constants)
    kernel(channels.grid(rows, x.size), target.threads, *arrays, rows, C, int(relu))
    return y, saved


def statistics(
    target: Target,
    x: Array,
    running_mean: Array,
    running_var: Array,
    *,
    training: bool,
    momentum: float,
    eps: float,
    moments: Moments | None = None,
) -> BatchNormSaved:
    """Return the statistics that normalise x; with `training`, update the running ones.

    x (..., C) is not read for them if its `moments` are given.

    Raises
    ------
    ValueError
        With `training`, if there is one value per channel.
    """
    rows, C = _rows(x)
    if training and rows == 1:
        raise ValueError(
            f"x: got shape {tuple(x.shape)}, expected more than one value per channel to train on"
        )
    wide = accumulator(x.dtype)
    mean, inv_std = target.empty((C,), wide), target.empty((C,), wide)
    if training and rows:
        moments = _moments(target, x) if moments is None else moments
        arrays = (*moments, mean, inv_std, running_mean, running_var)
        channels = Channels(target, C, wide, *moments[:2])
        kernel = _kernel(
            "batch_norm_merge", target, x.dtype, running_mean.dtype, **channels.constants
        )
        grid = channels.chunk_grid(1)
        if target.in_lanes:
            grid = (-(-C // target.lanes(accumulator_bytes(x.dtype))), 1, 1)
        sizes = (rows, C, len(moments.counts))
        kernel(grid, target.threads, *arrays, *sizes, momentum, eps)
    else:
        kernel = _kernel("batch_norm_running", target, x.dtype, running_mean.dtype)
        grid = target.stride_grid(C)
        kernel(grid, target.threads, running_mean, running_var, mean, inv_std, C, eps)
    return BatchNormSaved(mean, inv_std, bool(training))


def _moments(target: Target, x: Array) -> Moments:
    rows, C = _rows(x)
    channels = Channels(target, C, x.dtype, x)
    rows_per_chunk, count = channels.chunks(rows)
    moments = Moments.empty(target, count, C, x.dtype)
    kernel = _kernel("batch_norm_chunks", target, x.dtype, **channels.constants)
    grid = channels.chunk_grid(count)
    kernel(grid, target.threads, x, *moments, rows, C, rows_per_chunk)
    return moments


def batch_norm_backward(
    dy: Array,
    x: Array,
    gamma: Array,
    saved: BatchNormSaved,
    *,
    relu: bool = False,
    y: Array | None = None,
    out_dgamma: Array | None = None,
    out_dbeta: Array | None = None,
) -> tuple[Array, Array, Array]:
    """Return the gradients (dx, dgamma, dbeta) of `batch_norm`.

    Parameters
    ----------
    dy : array (..., C)
        Gradient of the result.
    x, gamma
        The arguments of `batch_norm`.
    saved : BatchNormSaved
        What it returned.
    relu : bool
        Whether it clipped its result; `y`, that result, is then needed.
    out_dgamma, out_dbeta : array (C,), optional
        C-contiguous arrays of x's dtype that dgamma and dbeta are written to.

    Raises
    ------
    TypeError, ValueError
        If dtypes, devices or shapes do not fit, or `y` is missing.
    """
    if relu and y is None:
        raise ValueError("y: got None, expected the result of batch_norm, since relu is set")
    if not isinstance(saved, BatchNormSaved):
        raise TypeError(f"saved: got {type(saved).__name__}, expected a BatchNormSaved")
    y = y if relu else None
    target, (dy, x, gamma, y) = checks.arrays(dy=dy, x=x, gamma=gamma, y=y, optional=("y",))
    rows, C = _rows(x)
    checks.shape("dy", dy, x.shape, "the shape of x")
    checks.shape("gamma", gamma, (C,), "one value per channel")
    if y is not None:
        checks.shape("y", y, x.shape, "the shape of x")
    mean, inv_std = (
        saved_statistic(target, f"saved.{name}", value, x.dtype, (C,), "one value per channel")
        for name, value in (("mean", saved.mean), ("inv_std", saved.inv_std))
    )
    others = {"dy": dy, "x": x, "gamma": gamma, "y": y, "mean": mean, "inv_std": inv_std}
    out_dgamma = checks.result(target, "out_dgamma", out_dgamma, (C,), x.dtype, others)
    others["out_dgamma"] = out_dgamma
    out_dbeta = checks.result(target, "out_dbeta", out_dbeta, (C,), x.dtype, others)

    channels = Channels(target, C, x.dtype, dy, x, y, mean, inv_std)
    rows_per_chunk, count = channels.chunks(rows)
    partial = target.empty((2, count, C), accumulator(x.dtype))
    arrays: tuple[Array | None, ...] = (dy, x, y, mean, inv_std, partial[0], partial[1])
    kernel = _kernel("batch_norm_gradient_chunks", target, x.dtype, **channels.constants)
    grid = channels.chunk_grid(count)
    kernel(grid, target.threads, *arrays, rows, C, rows_per_chunk)
    sums, dbeta, dgamma = gradient_sums(target, partial, x.dtype, out_dbeta, out_dgamma)
    dx = target.empty(x.shape, x.dtype)
    arrays = (dy, x, y, gamma, mean, inv_std, *sums, dx)
    channels = Channels(target, C, x.dtype, *arrays)
    kernel = _kernel("batch_norm_input_gradient", target, x.dtype, **channels.constants)
    kernel(channels.grid(rows, x.size), target.threads, *arrays, rows, C, int(saved.training))
    return dx, dgamma, dbeta


def gradient_sums(
    target: Target,
    partial: Array,
    dtype: Any,
    out_dbeta: Array | None = None,
    out_dgamma: Array | None = None,
) -> tuple[tuple[Array, Array], Array, Array]:
    """Sum partial (2, chunks, C) over the chunks.

    Returns
    -------
    sums : two arrays (C,)
        Of the type that sums are taken in.
    dbeta, dgamma : array (C,)
        The same in a dtype, written to the arrays given.
    """
    _, count, C = partial.shape
    sums = target.empty((C,), partial.dtype), target.empty((C,), partial.dtype)
    dbeta, dgamma = (
        target.empty((C,), dtype) if out is None else out for out in (out_dbeta, out_dgamma)
    )
    arrays = (partial[0], partial[1], *sums, dbeta, dgamma)
    channels = Channels(target, C, partial.dtype, *arrays)
    kernel = _kernel("batch_norm_gradient_sums", target, dtype, **channels.constants)
    kernel(channels.chunk_grid(1), target.threads, *arrays, count, C)
    return sums, dbeta, dgamma


def running(target: Target, x: Array, mean: Any, var: Any) -> list[Array]:
    """Return the running statistics, checked: in x's dtype or, if they are, in that of sums."""
    arrays = {"running_mean": mean, "running_var": var}
    wide = accumulator(x.dtype)
    if x.dtype == wide or as_array("running_mean", mean)[1].dtype != wide:
        return checks.arrays(x=x, **arrays)[1][1:]
    here, taken = checks.arrays(**arrays)
    if here is not target:
        raise ValueError(f"running_mean: is on {here}, expected {target} like x")
    return taken


def _kernel(entry: str, target: Target, dtype: Any, stat_t: Any = None, **constants: Any) -> Kernel:
    """Return a kernel for arrays of a dtype and running statistics of that or another one."""
    return _SOURCE.kernel(entry, target, dtype, stat_t=stat_t or dtype, **constants)


def _rows(x: Array) -> tuple[int, int]:
    if x.ndim < 2:
        raise ValueError(f"x: got shape {x.shape}, expected 2 dimensions or more (..., C)")
    C = x.shape[-1]
    return x.size // C if C else 0, C


def saved_statistic(
    target: Target, name: str, value: Array, dtype: Any, shape: Shape, meaning: str
) -> Array:
    """Return a statistic that was saved for the gradient by `dtype`, once it is known to be one."""
    wide = accumulator(dtype)
    array = checks.of_type(target, name, value, wide, "f")
    if array.dtype != wide:
        raise TypeError(f"{name}: got {array.dtype}, expected {wide}")
    checks.shape(name, array, shape, meaning)
    return array
