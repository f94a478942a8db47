"""Fused dense layer, softmax and cross-entropy: the last layer of a planned step."""

from __future__ import annotations

from ..common.reduce import accumulator
from ..common.rows import are_whole
from ..gemm import division, gemm
from ..runtime import Array, Source, Target, checks
from ..step.batch import Progress
from .softmax import IGNORE_INDEX

_SOURCE = Source("loss/dense_loss.cu", ROW_WHOLE=0)


def fits(target: Target, classes: int) -> bool:
    """Return whether a block can have all classes of its rows; `dense_cross_entropy` needs it."""
    return classes > 0 and division.has_whole_rows(target, classes)


def dense_cross_entropy(
    x: Array,
    w: Array,
    b: Array | None,
    labels: Array,
    label_smoothing: float,
    progress: Progress | None = None,
) -> tuple[Array, Array, Array]:
    """Return logits, row losses and the gradient of the mean loss by the logits, in one launch.

    Parameters
    ----------
    x, w, b : array (N, in), (classes, in), (classes,) or None
        As `kernels.dense` takes them; `fits` must allow the number of classes.
    labels : array (N,) of int64
        Classes; see `kernels.softmax_cross_entropy`.
    label_smoothing : float
        In [0, 1].
    progress : Progress, optional
        Count the step there, as `count_batch` does.

    Returns
    -------
    logits, losses, dlogits : array (N, classes), (N,), (N, classes)
        The losses have the type of sums, see `accumulator`.
    """
    target, (x, w, b) = checks.arrays(x=x, w=w, b=b, optional=("b",))
    (rows, inputs), classes = x.shape, len(w)
    logits, dlogits = (target.empty((rows, classes), x.dtype) for _ in range(2))
    losses = target.empty((rows,), accumulator(x.dtype))
    sizes = division.Sizes(rows, classes, inputs, split="in tiles")
    operands = (x, inputs), (w, inputs)
    launch, work = gemm.forward(
        *(_SOURCE, "dense_cross_entropy", target, sizes, *operands),
        whole_rows=True,
        ROW_WHOLE=int(are_whole(target, logits, dlogits)),
    )
    totals, counters = (None, None) if progress is None else (progress.totals, progress.counters)
    finished = None if progress is None else target.counters(1)
    sums, arrived, *parts = work.parts(target, x.dtype)
    arrays = (x, w, b, labels, logits, losses, dlogits, totals, counters, finished, sums, arrived)
    launch(*arrays, rows, inputs, classes, *parts, IGNORE_INDEX, label_smoothing)
    return logits, losses, dlogits
