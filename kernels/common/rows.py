"""Launches of kernels that compute rows, see ``rows.cuh``."""

from __future__ import annotations

from typing import NamedTuple

from ..runtime import Array, Target
from ..runtime.types import Grid
from .reduce import accumulator_bytes

_WARP = 32  # threads of a warp
_SPAN = 16  # bytes of a row that a thread takes at once
_WARPS = 4  # warps of a block if each takes a row
_OF_WARP = 32  # registers in which a thread of a warp keeps a row
_THREAD_BYTES = 2048  # most threads of a block, times the bytes of a sum: as RowThreads::MOST


class RowLaunch(NamedTuple):
    """How a kernel is compiled and launched for rows of some length.

    Attributes
    ----------
    threads : int
        Those that share a row: 1, a warp's, or 0 for all of the block.
    spans : int
        Each thread keeps at most so many times 16 bytes of a row; 0 if rows are read again.
    geometry : tuple
        Grid and threads per block.
    whole : bool
        Whether the kernel may assume that all rows of all arrays are whole spans of 16 bytes, and
        aligned to 16 bytes.
    """

    threads: int
    spans: int
    geometry: tuple[Grid, int]
    whole: bool = False

    @property
    def constants(self) -> dict[str, int]:
        """What the kernel is compiled with."""
        rows = {"ROW_THREADS": self.threads, "ROW_SPANS": self.spans}
        return rows | {"ROW_WHOLE": int(self.whole)}


def row_launch(
    target: Target, rows: int, registers: int, x: Array, *others: Array | None
) -> RowLaunch:
    """Return the launch of a kernel over rows of the last axis of x, on cuda by length.

    A warp takes a short row, a block a longer one, whose threads keep it in at most so many
    registers each, if they can. Spans are a power of two, so that few variants are compiled. The
    `others` are the kernel's other arrays of such rows, or None.
    """
    C = x.shape[-1]
    if target.in_lanes:  # several rows per block: starting one takes longer than a short row
        grid = min(rows, target.stride_grid(rows * max(C, 1))[0])
        return RowLaunch(0, 0, ((grid, 1, 1), target.threads))
    whole = are_whole(target, x, *others)
    size = accumulator_bytes(x.dtype)  # of a column in registers
    span = _SPAN // x.dtype.itemsize
    if C * size <= _WARP * _OF_WARP * 4:
        geometry = (-(-rows // _WARPS), 1, 1), _WARPS * _WARP
        return RowLaunch(_WARP, _spans(C, _WARP * span), geometry, whole)
    threads = target.block(-(-C // span))
    needed = -(-C * size // (registers * 4 * _WARP)) * _WARP  # to keep the row
    keep = needed <= _THREAD_BYTES // size
    threads = max(threads, needed) if keep else threads
    spans = _spans(C, threads * span) if keep else 0
    return RowLaunch(0, spans, ((rows, 1, 1), threads), whole)


def are_whole(target: Target, *arrays: Array | None) -> bool:
    """Return whether all rows are whole spans of 16 bytes, and aligned to 16 bytes, on cuda.

    The arrays have the same last axis; some may be None.
    """
    return not target.in_lanes and all(
        array.shape[-1] * array.itemsize % _SPAN == 0 and target.address(array) % _SPAN == 0
        for array in arrays
        if array is not None
    )


def _spans(C: int, at_once: int) -> int:
    """Return how often a thread takes 16 bytes of a row, rounded up to a power of two."""
    return 1 << (-(-C // at_once) - 1).bit_length()
