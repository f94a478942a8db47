"""Parts of the gradients of convolutions and dense layers: passing a ReLU, and ordered sums."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from ..common.geometry import Pooling
from ..common.pending import take_up
from ..runtime import Array, Source, Target
from ..runtime.types import Shape

_SOURCE = Source("gemm/gradients.cu")


class Rectified(NamedTuple):
    """The result of a ReLU, or of max-pooling and a ReLU in either order.

    Attributes
    ----------
    y : array (N, ...)
        The result.
    argmax : array (N, PH, PW, F), optional
        Where each maximum lies in its window.
    pooling : Pooling, optional
        The windows, which do not overlap and leave no gaps; needed with argmax.
    """

    y: Array
    argmax: Array | None = None
    pooling: Pooling | None = None

    @property
    def shape(self) -> Shape:
        """The shape of the input of the ReLU or pool."""
        if self.pooling is None:
            return tuple(self.y.shape)
        return len(self.y), self.pooling.OH, self.pooling.OW, self.pooling.F


#: What `past_relu` returns, where no gradient of an input is needed.
NO_INPUT = (None, None, None, Pooling())


def past_relu(
    make: Callable[[Shape, Any], Array], shape: Shape, dtype: Any, past: Rectified | None
) -> tuple[Array, Array | None, Array | None, Pooling]:
    """Return the fields of the kernels' PastRelu; the first is a new array for the gradient.

    It has the input's shape or, with `past`, that of the input of the ReLU or pool.
    """
    if past is None:
        return make(shape, dtype), None, None, Pooling()
    y, argmax, pooling = past
    return make(past.shape, dtype), y, argmax, pooling or Pooling()


def what_passes(past: Rectified | None) -> int:
    """Return PAST of the kernels' PastRelu."""
    if past is None:
        return 0
    return 1 if past.argmax is None else 2


def sum_gradients(
    target: Target, partial: Array, dw: Array, db: Array | None, columns: int = 1
) -> None:
    """Write the sums of partial over its first axis to dw (columns, rows), flat, and db.

    Each part holds dw transposed, (rows, columns), then db. Where `PendingSums` are collected, they
    may be added up later.
    """
    if columns == 1 and take_up(partial, [dw] if db is None else [dw, db]):
        return
    biases = 0 if db is None else db.size
    kernel = _SOURCE.kernel("sum_gradients", target, dw.dtype)
    arguments = (partial, dw, db, dw.size // columns, columns, biases, len(partial))
    kernel(target.stride_grid(dw.size + biases), target.threads, *arguments)
