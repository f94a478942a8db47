"""Softmax, cross-entropy on probabilities, and the two fused."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..common.cast import cast
from ..common.reduce import accumulator
from ..common.rows import RowLaunch, are_whole, row_launch
from ..runtime import Array, Source, Target, checks

# The defaults are for rows of any length.
_SOURCE = Source("loss/softmax.cu", ROW_THREADS=0, ROW_SPANS=0, ROW_WHOLE=0)
_WARP = 32  # threads of a warp
_FEW = 32  # most columns of a row that one thread handles, on cuda
IGNORE_INDEX = -100  #: label of rows that are left out of the loss, as in PyTorch


def softmax(x: Array) -> Array:
    """Return exp(x) / sum(exp(x)) over the last axis, shifted so that it cannot overflow.

    Parameters
    ----------
    x : array (..., C)
        Floating. Entries of -inf get probability 0; a row of nothing else gives NaN.

    Raises
    ------
    TypeError, ValueError
        If x is not floating or has no axis.
    """
    target, (x,) = checks.arrays(x=x)
    rows, C = _rows("x", x)
    y = target.empty(x.shape, x.dtype)
    launch = _launch(target, rows, 64, x, y)
    kernel = _SOURCE.kernel("softmax_forward", target, x.dtype, **launch.constants)
    room, shared = _room(target, y)
    kernel(*launch.geometry, x, y, rows, C, room, shared=shared)
    return y


def softmax_backward(dy: Array, y: Array) -> Array:
    """Return the Jacobian product dx = y * (dy - sum(dy * y)) of `softmax`, y being its result.

    Raises
    ------
    TypeError, ValueError
        If dtypes, devices or shapes do not fit.
    """
    target, (dy, y) = checks.arrays(dy=dy, y=y)
    rows, C = _rows("dy", dy)
    checks.shape("y", y, dy.shape, "the shape of dy")
    dx = target.empty(y.shape, y.dtype)
    launch = _launch(target, rows, 32, y, dy, dx)
    kernel = _SOURCE.kernel("softmax_backward", target, y.dtype, **launch.constants)
    kernel(*launch.geometry, dy, y, dx, rows, C)
    return dx


def softmax_cross_entropy(
    logits: Array,
    labels: Array,
    *,
    weight: Array | None = None,
    ignore_index: int = IGNORE_INDEX,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    grad: bool = True,
) -> tuple[Array, Array | None]:
    """Return the cross-entropy of softmax(logits) with the labels, and its gradient, in one pass.

    Parameters
    ----------
    logits : array (N, C)
        Floating.
    labels : array (N,)
        Classes, of any integer dtype. Rows with `ignore_index` are left out; any other label
        outside [0, C) gives NaN.
    weight : array (C,), optional
        Weight of each class, of logits' dtype.
    label_smoothing : float
        In [0, 1]: the share of the target spread over all classes.
    reduction : {"mean", "sum", "none"}
        "mean" divides by the summed weights of the rows that count.
    grad : bool
        If False, the gradient is not computed and None is returned for it.

    Returns
    -------
    loss : array ()
        (N,) for "none".
    dlogits : array (N, C) or None
        Gradient of the loss; for "none", of the sum of the losses.

    Raises
    ------
    TypeError, ValueError
        If dtypes, devices, shapes or parameters do not fit.

    Notes
    -----
    Semantics are those of `torch.nn.functional.cross_entropy`; the mean over no rows is NaN.
    """
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction: got {reduction!r}, expected 'mean', 'sum' or 'none'")
    smoothing = checks.number("label_smoothing", label_smoothing, least=0, most=1)
    ignore_index = checks.whole("ignore_index", ignore_index, -(2**31))
    target, (logits, weight) = checks.arrays(logits=logits, weight=weight, optional=("weight",))
    checks.dimensions("logits", logits, "N, C")
    N, C = logits.shape
    labels = _labels(target, labels, N)
    if weight is not None:
        checks.shape("weight", weight, (C,), "one weight per class")
    wide = accumulator(logits.dtype)
    divisor = None
    if reduction == "mean":
        divisor = _divisor(target, labels, weight, logits, ignore_index)
    losses = target.empty((N,), wide)
    dlogits = target.empty((N, C), logits.dtype) if grad else None
    # Rows that are no whole accesses take registers for conditions.
    registers = 64 if are_whole(target, logits, weight, dlogits) else 32
    launch = _launch(target, N, registers, logits, weight, dlogits)
    constants = launch.constants
    kernel = _SOURCE.kernel("softmax_cross_entropy_rows", target, logits.dtype, **constants)
    arrays = (logits, labels, weight, divisor, losses, dlogits)
    room, shared = _room(target, logits) if grad else (0, 0)
    sizes = (N, C, ignore_index, smoothing, room)
    kernel(*launch.geometry, *arrays, *sizes, shared=shared)
    if reduction == "none":
        return cast(losses, logits.dtype), dlogits
    return _sum(target, losses, logits.dtype, divisor), dlogits


def cross_entropy(probabilities: Array, labels: Array) -> tuple[Array, Array]:
    """Return the mean of -log(probability of the label) and its gradient: the textbook loss.

    Parameters
    ----------
    probabilities : array (N, C)
        Rows that sum to 1, such as `softmax` gives. A probability that underflowed counts as the
        smallest normal number of its type, so that loss and gradient stay finite.
    labels : array (N,)
        Classes, of any integer dtype. A label outside [0, C) gives NaN for its row, which is not
        counted in the mean's divisor.

    Returns
    -------
    loss : array ()
    dprobabilities : array (N, C)

    Raises
    ------
    TypeError, ValueError
        If dtypes, devices or shapes do not fit.
    """
    target, (probabilities,) = checks.arrays(probabilities=probabilities)
    checks.dimensions("probabilities", probabilities, "N, C")
    N, C = probabilities.shape
    labels = _labels(target, labels, N)
    divisor = _divisor(target, labels, None, probabilities, ignore_index=-1)  # -1: never valid
    losses = target.empty((N,), accumulator(probabilities.dtype))
    dprobabilities = target.empty((N, C), probabilities.dtype)
    # The smallest normal number: its reciprocal, the gradient, is still finite in the type.
    known = probabilities.dtype.kind == "f"  # to NumPy; bfloat16 has float32's exponents
    floor = float(np.finfo(probabilities.dtype if known else np.float32).tiny)
    launch = _launch(target, N, 32, probabilities, dprobabilities)
    kernel = _SOURCE.kernel("cross_entropy_rows", target, probabilities.dtype, **launch.constants)
    kernel(*launch.geometry, probabilities, labels, divisor, losses, dprobabilities, N, C, floor)
    return _sum(target, losses, probabilities.dtype, divisor), dprobabilities


def _rows(name: str, x: Array) -> tuple[int, int]:
    if x.ndim < 1:
        raise ValueError(f"{name}: got shape (), expected 1 dimension or more (..., C)")
    C = x.shape[-1]
    return checks.count(f"{name}: rows", x.size // C if C else 0), C


def _labels(target: Target, labels: Any, N: int) -> Array:
    labels = checks.of_type(target, "labels", labels, "an integer dtype", "iu")
    checks.shape("labels", labels, (N,), "one label per row")
    with target.on():
        if labels.dtype.kind == "u" and labels.dtype.itemsize == 8:
            labels = labels.clip(0, 2**63 - 1)  # large ones must not become negative
        return labels.astype(np.int64, copy=False)


def _launch(
    target: Target, rows: int, registers: int, x: Array, *others: Array | None
) -> RowLaunch:
    """Return the launch for rows of x: a thread each if they are short, on cuda."""
    if x.shape[-1] <= _FEW and not target.in_lanes:
        return RowLaunch(1, 0, ((-(-rows // _WARP), 1, 1), _WARP))
    return row_launch(target, rows, registers, x, *others)


def _room(target: Target, x: Array) -> tuple[int, int]:
    """Return the elements of shared memory that cache a row of x (..., C), and their bytes.

    None on cuda, where registers keep a row, or if a row is too long.
    """
    C = x.shape[-1]
    size = C * x.dtype.itemsize
    return (C, size) if target.in_lanes and size <= target.near_bytes else (0, 0)


def _divisor(
    target: Target, labels: Array, weight: Array | None, rows: Array, ignore_index: int
) -> Array:
    """Return the summed weights of the rows that count, for rows (N, C)."""
    divisor = target.empty((1,), accumulator(rows.dtype))
    kernel = _SOURCE.kernel("loss_divisor", target, rows.dtype)
    one = (1, 1, 1), target.threads
    kernel(*one, labels, weight, divisor, *rows.shape, ignore_index)
    return divisor


def _sum(target: Target, losses: Array, dtype: Any, divisor: Array | None) -> Array:
    """Return the ordered sum of the losses, divided by the divisor if there is one."""
    loss = target.empty((), dtype)
    kernel = _SOURCE.kernel("sum_losses", target, dtype)
    kernel((1, 1, 1), target.threads, losses, divisor, loss, losses.size)
    return loss
