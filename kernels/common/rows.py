"""Launches of kernels that compute rows, see ``rows.cuh``."""

from __future__ import annotations

import numpy as np

from ..runtime import Array, Target
from ..runtime.types import Grid
from .reduce import accumulator

_WARP = 32  # threads of a warp
_WARPS = 4  # warps of a block if each handles one row
# As in rows.cuh: registers in which a thread of a warp keeps a row; and ROW_THREADS, the most
# threads of a block, times the bytes of a sum.
_OF_WARP, _THREAD_BYTES = 32, 2048


def row_geometry(target: Target, x: Array, rows: int, registers: int) -> tuple[Grid, int]:
    """Return grid and threads for `each_row` over rows of the last axis of x.

    On cuda a warp takes a short row, a block a longer one, whose threads keep it in so many
    registers each, if they can.
    """
    C = x.shape[-1]
    if target.in_lanes:  # several rows per block: starting one takes longer than a short row
        return (min(rows, target.stride_grid(rows * max(C, 1))[0]), 1, 1), target.threads
    size = np.dtype(accumulator(x.dtype)).itemsize
    if _WARP * _OF_WARP * 4 // size >= C:
        return (-(-rows // _WARPS), 1, 1), _WARP * _WARPS
    threads = target.block(-(-C * x.dtype.itemsize // 16))
    needed = -(-C * size // (registers * 4 * _WARP)) * _WARP  # to keep the row
    return (rows, 1, 1), needed if threads < needed <= _THREAD_BYTES // size else threads
