"""What the gradients of convolutions and dense layers share: where they go, and their sums."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from ..common.geometry import Pooling
from ..runtime import Array, Source, Target
from ..runtime.types import Shape

_SOURCE = Source("gemm/gradients.cu")


class Rectified(NamedTuple):
    """An array that a ReLU has made, or max-pooling with a ReLU, in either order.

    Attributes
    ----------
    y : array (N, ...)
        The result.
    argmax : array (N, PH, PW, F), optional
        Where each maximum lies in its window.
    pooling : Pooling, optional
        The windows, which touch and do not overlap; needed with argmax.
    """

    y: Array
    argmax: Array | None = None
    pooling: Pooling | None = None

    @property
    def shape(self) -> Shape:
        """The shape of what the ReLU or the pool was given."""
        if self.pooling is None:
            return tuple(self.y.shape)
        return len(self.y), self.pooling.OH, self.pooling.OW, self.pooling.F


def past_relu(
    make: Callable[[Shape, Any], Array], shape: Shape, dtype: Any, past: Rectified | None
) -> tuple[Array, Array | None, Array | None, Pooling]:
    """Return the fields of the kernels' PastRelu, the first of them for an input's gradient.

    That is made with the input's shape, or that of what was rectified.
    """
    if past is None:
        return make(shape, dtype), None, None, Pooling()
    y, argmax, pooling = past
    return make(past.shape, dtype), y, argmax, pooling or Pooling()


def sum_gradients(
    target: Target, partial: Array, dw: Array, db: Array | None, columns: int = 1
) -> None:
    """Write the sums over partial's first axis to dw (columns, rows), flat, and db.

    Each part has dw transposed, (rows, columns), and then db.
    """
    biases = 0 if db is None else db.size
    kernel = _SOURCE.kernel("sum_gradients", target, dw.dtype)
    arguments = (partial, dw, db, dw.size // columns, columns, biases, len(partial))
    kernel(target.stride_grid(dw.size + biases), target.threads, *arguments)
