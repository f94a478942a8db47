"""How threads share the channels of NHWC arrays: the host side of ``channels.cuh``."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..runtime import Array, Target
from ..runtime.types import Grid

_VECTOR_BYTES = 16  # of one access
_LINE_BYTES, _SECTOR_BYTES = 128, 32  # units of memory traffic: a line, and its smallest part
_BLOCKS = 8 * 132  # blocks of 256 threads that the largest GPUs hold at once
_EVERYWHERE = 256  # blocks that occupy every multiprocessor
_ROWS = 4  # rows per thread, if enough blocks are left: values per channel are loaded once
_ELEMENTS = 16  # least elements per thread in a chunk: so many loads can be in flight
_CHUNKS = 4 * 132  # most chunks, since one block merges them
# Of a chunk on `cpu`: with many channels it has fewer rows, so that all cores have chunks.
_CPU_ROWS, _CPU_ELEMENTS = (16, 1024), 2**18


class Channels:
    """C channels of arrays that a kernel of a dtype reads and writes; some arrays may be None.

    Parameters
    ----------
    taps : int
        A row has taps * C channels.

    Attributes
    ----------
    constants : dict
        Constants that the kernel is compiled with.
    """

    def __init__(
        self, target: Target, C: int, dtype: Any, *arrays: Array | None, taps: int = 1
    ) -> None:
        self._target, self._C, self._taps = target, C, taps
        self._itemsize = np.dtype(dtype).itemsize
        self.constants: dict[str, int] = {}
        if target.in_lanes:
            return
        self._vector = _VECTOR_BYTES // self._itemsize
        while not self._fits(arrays):
            self._vector //= 2
        self.constants["VECTOR"] = self._vector

    def _fits(self, arrays: tuple[Array | None, ...]) -> bool:
        """Whether all arrays can be accessed by vectors."""
        if self._C % self._vector:
            return False
        given = [array for array in arrays if array is not None]
        units = [min(_VECTOR_BYTES, self._vector * array.itemsize) for array in given]
        return not any(
            self._target.address(array) % unit for array, unit in zip(given, units, strict=True)
        )

    def grid(self, rows: int, elements: int) -> Grid:
        """Return the grid of a kernel that handles each row by itself.

        On `cpu` it depends on the elements that are read or written instead.
        """
        if self._target.in_lanes:
            return self._target.stride_grid(elements)
        columns, groups = self._columns(_LINE_BYTES)
        blocks = -(-rows // (self._target.threads // columns))
        total = blocks * groups
        each = max(1, min(_ROWS, total // _EVERYWHERE), -(-total // _BLOCKS))
        return (-(-blocks // each), groups, 1)

    def chunks(self, rows: int, pixels: int = 1) -> tuple[int, int]:
        """Return (rows per chunk, chunks) of a two-pass reduction, of rows of so many pixels.

        They depend on shapes and alignment alone, not on the device, and so do results.
        """
        if self._target.in_lanes:
            per_chunk = max(_CPU_ROWS[0], min(_CPU_ELEMENTS // max(1, self._C), _CPU_ROWS[1]))
        else:
            at_once = self._target.threads // self._columns(_LINE_BYTES)[0]
            least = at_once * max(1, max(_ROWS, _ELEMENTS // self._vector) // pixels)
            per_chunk = least * max(1, -(-rows // (least * _CHUNKS)))
        return per_chunk, -(-rows // per_chunk)

    def chunk_grid(self, chunks: int) -> Grid:
        """Return the grid of a kernel that computes one result per chunk of rows.

        If there are few chunks, a block takes less than a line, so that there are more blocks.
        """
        if self._target.in_lanes:
            return (chunks, 1, 1)
        most_bytes = _LINE_BYTES
        while most_bytes > _SECTOR_BYTES and chunks * self._columns(most_bytes)[1] < _EVERYWHERE:
            most_bytes //= 2
        return (chunks, self._columns(most_bytes)[1], 1)

    def _columns(self, most_bytes: int) -> tuple[int, int]:
        """Return the most vectors per block, and the number of blocks that share them all."""
        vectors = self._taps * self._C // self._vector
        groups = -(-vectors * self._vector * self._itemsize // most_bytes)
        return max(1, -(-vectors // max(1, groups))), groups
