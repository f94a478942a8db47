"""The dense layer and its gradients, on the one GEMM."""

from __future__ import annotations

from ..common.reduce import accumulator, column_sum, sum_partials
from ..runtime import Array, Source, Target, checks
from . import both, division, gemm
from .gradients import NO_INPUT, Rectified, past_relu, sum_gradients, what_passes

_SOURCE = Source("gemm/dense.cu", sum_t="float32")


def dense(x: Array, w: Array, b: Array | None = None, *, relu: bool = False) -> Array:
    """Return x @ w.T + b, clipped below at zero if `relu`.

    Parameters
    ----------
    x : array (N, in)
        Floating.
    w : array (out, in)
        Weights, of x's dtype.
    b : array (out,), optional
        Biases, of x's dtype.
    relu : bool
        Apply a ReLU to the result.

    Returns
    -------
    array (N, out)

    Raises
    ------
    TypeError, ValueError
        If dtypes, devices or shapes do not fit.
    """
    target, (x, w, b) = checks.arrays(x=x, w=w, b=b, optional=("b",))
    rows, inputs, outputs = _sizes(x, w)
    if b is not None:
        checks.shape("b", b, (outputs,), "one bias per output")
    y = target.empty((rows, outputs), x.dtype)
    sizes = division.Sizes(rows, outputs, inputs, split="in tiles")
    launch, work = gemm.forward(_SOURCE, "dense_forward", target, sizes, (x, inputs), (w, inputs))
    sums, arrived, *parts = work.parts(target, x.dtype)
    launch(x, w, b, y, sums, arrived, rows, inputs, outputs, int(bool(relu)), *parts)
    return y


def dense_backward(
    dy: Array,
    x: Array,
    w: Array,
    *,
    need_dx: bool = True,
    need_dw: bool = True,
    need_db: bool = True,
    out_dw: Array | None = None,
    out_db: Array | None = None,
) -> tuple[Array | None, Array | None, Array | None]:
    """Return the gradients (dx, dw, db) of `dense` without ReLU.

    Parameters
    ----------
    dy : array (N, out)
        Gradient of the result.
    x : array (N, in)
        The input of `dense`.
    w : array (out, in)
        Its weights.
    need_dx, need_dw, need_db : bool
        If False, dx, dw or db is not computed and None is returned for it.
    out_dw, out_db : array, optional
        C-contiguous arrays that dw and db are written to, of their shape and dtype.

    Raises
    ------
    TypeError, ValueError
        If dtypes, devices or shapes do not fit.
    """
    target, (dy, x, w) = checks.arrays(dy=dy, x=x, w=w)
    rows, inputs, outputs = _sizes(x, w)
    checks.shape("dy", dy, (rows, outputs), "the shape of the result")
    others, dw, db = {"dy": dy, "x": x, "w": w}, None, None
    if need_dw:
        dw = checks.result(target, "out_dw", out_dw, w.shape, x.dtype, others)
        others["out_dw"] = dw
    if need_db:
        db = checks.result(target, "out_db", out_db, (outputs,), x.dtype, others)
    return gradients(target, dy, x, w, dw, db, need_dx=need_dx), dw, db


def gradients(
    target: Target,
    dy: Array,
    x: Array,
    w: Array,
    dw: Array | None,
    db: Array | None,
    *,
    need_dx: bool,
    past: Rectified | None = None,
) -> Array | None:
    """Return dx or None; write dw and db unless they are None. The caller checks arguments.

    If x is the result of a ReLU, given as `past`, dx is the gradient of its input instead.
    """
    rows, inputs, outputs = len(x), w.shape[1], w.shape[0]
    with_db = None if target.in_lanes else db  # of the same product as dw
    if with_db is not None and dw is None:
        dw = target.empty(w.shape, x.dtype)
    columns = inputs if with_db is None else max(inputs, 1)  # db, even without inputs
    of_weights = of_input = division.NOTHING
    if dw is not None:
        of_weights = division.Sizes(outputs, columns, rows, split="always")
    if need_dx:
        of_input = division.Sizes(rows, inputs, outputs, split="in tiles")
    works = division.divide_both(target, x.dtype, of_weights, of_input)
    size, splits = w.size + (0 if with_db is None else outputs), works[0].splits
    whole = dw is None or splits == 1  # then no sum of partial results is needed
    wide = x.dtype if whole else accumulator(x.dtype)
    to = (dw, with_db)
    if not whole:
        partial = target.empty((splits, size), wide)
        to = (partial, None if with_db is None else partial.reshape(-1)[w.size :])
    dx, *through = past_relu(target.empty, (rows, inputs), dy.dtype, past) if need_dx else NO_INPUT
    of_dy, of_x, of_w = (gemm.in_vectors(target, array, array.shape[1]) for array in (dy, x, w))
    both.launch(
        _SOURCE,
        "dense_gradients",
        target,
        x.dtype,
        both.Product(of_weights, (of_dy, of_x), (dy, x)),
        both.Product(of_input, (of_dy, of_w), (w, dx, *through)),
        works,
        (*to, size),
        *(rows, inputs, outputs),
        sum_t=wide,
        PAST=what_passes(past if need_dx else None),
    )
    if not whole and target.in_lanes:
        sum_partials(target, partial, x.dtype, dw)
    elif not whole:
        sum_gradients(target, partial, dw, db)
    if target.in_lanes and db is not None:
        column_sum(target, dy, db)
    return dx


def _sizes(x: Array, w: Array) -> tuple[int, int, int]:
    """Return (rows, inputs, outputs)."""
    checks.dimensions("x", x, "N, in")
    checks.dimensions("w", w, "out, in")
    checks.shape("w", w, (w.shape[0], x.shape[1]), "(out, in) for x's (N, in)")
    return checks.count("x: rows", x.shape[0]), x.shape[1], w.shape[0]
