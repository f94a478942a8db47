"""The dense layer and its gradients, on the one GEMM."""

from __future__ import annotations

from ..common.reduce import accumulator, column_sum, sum_outputs, sum_partials
from ..runtime import Array, Source, Target, checks
from . import gemm

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
    vectors = gemm.in_vectors(target, x, inputs), gemm.in_vectors(target, w, inputs)
    work = gemm.divide(target, x.dtype, rows, outputs, inputs, split="in tiles")
    if work.splits > 1:
        launch = gemm.product(_SOURCE, "dense_partial", target, x.dtype, work, vectors=vectors)
        partial = target.empty((work.splits, rows, outputs), accumulator(x.dtype))
        launch(x, w, partial, rows, inputs, outputs, work.share)
        sum_outputs(target, partial, b, y, relu=relu)
        return y
    launch = gemm.product(_SOURCE, "dense_forward", target, x.dtype, work, vectors=vectors)
    launch(x, w, b, y, rows, inputs, outputs, int(bool(relu)))
    return y


def dense_backward(
    dy: Array,
    x: Array,
    w: Array,
    *,
    need_dx: bool = True,
    need_db: bool = True,
    out_dw: Array | None = None,
    out_db: Array | None = None,
) -> tuple[Array | None, Array, Array | None]:
    """Return the gradients (dx, dw, db) of `dense` without ReLU.

    Parameters
    ----------
    dy : array (N, out)
        Gradient of the result.
    x : array (N, in)
        The input of `dense`.
    w : array (out, in)
        Its weights.
    need_dx, need_db : bool
        If False, dx or db is not computed and None is returned for it.
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
    dw = checks.result(target, "out_dw", out_dw, w.shape, x.dtype)
    db = checks.result(target, "out_db", out_db, (outputs,), x.dtype) if need_db else None
    dx = None
    if need_dx:
        dx = target.empty((rows, inputs), x.dtype)
        _product(target, "dense_input_gradient", (dy, w, dx), rows, inputs, outputs, "in tiles")
    _product(target, "dense_weight_gradient", (dy, x, dw), outputs, inputs, rows, "always")
    if db is not None:
        column_sum(target, dy, db)
    return dx, dw, db


def _product(
    target: Target,
    entry: str,
    arrays: tuple[Array, Array, Array],
    M: int,
    N: int,
    K: int,
    split: gemm.Split,
) -> None:
    """Write the product (M, N) of the first two arrays to the third."""
    a, b, y = arrays
    work = gemm.divide(target, y.dtype, M, N, K, split=split)
    whole = work.splits == 1  # then no sum of partial results is needed
    partial = y if whole else target.empty((work.splits, M, N), accumulator(y.dtype))
    vectors = gemm.in_vectors(target, a, a.shape[1]), gemm.in_vectors(target, b, b.shape[1])
    launch = gemm.product(_SOURCE, entry, target, y.dtype, work, vectors=vectors)
    launch(a, b, partial, M, N, K, work.share)
    if not whole:
        sum_partials(target, partial, y.dtype, y)


def _sizes(x: Array, w: Array) -> tuple[int, int, int]:
    """Return (rows, inputs, outputs)."""
    checks.dimensions("x", x, "N, in")
    checks.dimensions("w", w, "out, in")
    checks.shape("w", w, (w.shape[0], x.shape[1]), "(out, in) for x's (N, in)")
    return checks.count("x: rows", x.shape[0]), x.shape[1], w.shape[0]
