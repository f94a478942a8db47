"""Ordered sums over rows: bias gradients, and the partial results of a split GEMM."""

from __future__ import annotations

from typing import Any

from ..runtime import Array, Source, Target
from .channels import Channels

_SOURCE = Source("common/reduce.cu")


def column_sum(target: Target, x: Array, y: Array) -> None:
    """Write the sum of x (rows, C) over its rows to y (C,)."""
    rows, C = x.shape
    channels = Channels(target, C, x.dtype, x)
    rows_per_chunk, count = channels.chunks(rows)
    wide = accumulator(x.dtype)
    whole = count == 1 and wide == x.dtype  # then no second pass is needed
    partial = y if whole else target.empty((count, C), wide)
    channels = Channels(target, C, x.dtype, x, partial)
    kernel = _SOURCE.kernel("column_sum", target, x.dtype, **channels.constants)
    grid = channels.chunk_grid(count)
    kernel(grid, target.threads, x, partial, rows, C, rows_per_chunk)
    if whole:
        return
    channels = Channels(target, C, wide, partial, y)
    kernel = _SOURCE.kernel("sum_chunks", target, x.dtype, **channels.constants)
    kernel(channels.chunk_grid(1), target.threads, partial, y, count, C)


def sum_partials(target: Target, partial: Array, dtype: Any, out: Array | None = None) -> Array:
    """Sum partial (splits, ...) over its first axis in order; the sum of no splits is 0.

    The result is written to `out` if that is given, an array of this dtype; see `checks.result`.
    """
    y = target.empty(partial.shape[1:], dtype) if out is None else out
    kernel = _SOURCE.kernel("sum_partials", target, dtype)
    kernel(target.stride_grid(y.size), target.threads, partial, y, y.size, partial.shape[0])
    return y


def accumulator(dtype: Any) -> str:
    """Return the dtype that sums of `dtype` are taken in."""
    return "float64" if dtype == "float64" else "float32"


def accumulator_bytes(dtype: Any) -> int:
    """Return the bytes of such a sum."""
    return 8 if dtype == "float64" else 4
