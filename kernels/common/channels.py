"""How threads share the channels of NHWC arrays: the host's part of ``channels.cuh``."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..runtime import Array, Target
from ..runtime.types import Grid

_VECTOR_BYTES = 16  # of one access
_LINE_BYTES, _SECTOR_BYTES = 128, 32  # what memory moves at once, and at least
_BLOCKS = 8 * 132  # of 256 threads: as many as the largest GPUs hold at once
_EVERYWHERE = 256  # blocks for every multiprocessor
_ROWS = 4  # of a thread, where that leaves blocks enough: it loads what is of its channels once
_ELEMENTS = 16  # of a thread in a chunk, at least: so many are loaded before one is waited for
_CHUNKS = 4 * 132  # at most, for one block merges them


class Channels:
    """C channels of arrays that a kernel of a dtype reads and writes; some arrays may be None.

    Parameters
    ----------
    taps : int
        How many times C channels a row has.

    Attributes
    ----------
    constants : dict
        What to compile the kernel with.
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
        """Return the grid of a kernel that does each row by itself, of a batch or of pixels.

        On `cpu` it depends on the elements that are read or written instead.
        """
        if self._target.in_lanes:
            return self._target.stride_grid(elements)
        columns, groups = self._columns(_LINE_BYTES)
        blocks = -(-rows // (self._target.threads // columns))
        total = blocks * groups
        each = max(1, min(_ROWS, total // _EVERYWHERE), -(-total // _BLOCKS))
        return (-(-blocks // each), groups, 1)

    def chunks(self, rows: int) -> tuple[int, int]:
        """Return (rows per chunk, chunks) of a two-pass reduction.

        They depend on shapes and alignment alone, not on the device, so that results do not either.
        """
        per_chunk = 1024
        if not self._target.in_lanes:
            at_once = self._target.threads // self._columns(_LINE_BYTES)[0]
            least = at_once * max(1, _ELEMENTS // self._vector)
            per_chunk = least * max(1, -(-rows // (least * _CHUNKS)))
        return per_chunk, -(-rows // per_chunk)

    def chunk_grid(self, chunks: int) -> Grid:
        """Return the grid of a kernel that makes one result of each chunk of rows.

        Of few chunks a block takes less than a line, so that there are more blocks.
        """
        if self._target.in_lanes:
            return (chunks, 1, 1)
        most_bytes = _LINE_BYTES
        while most_bytes > _SECTOR_BYTES and chunks * self._columns(most_bytes)[1] < _EVERYWHERE:
            most_bytes //= 2
        return (chunks, self._columns(most_bytes)[1], 1)

    def _columns(self, most_bytes: int) -> tuple[int, int]:
        """Return the vectors that a block takes at most, and how many blocks share them all."""
        vectors = self._taps * self._C // self._vector
        groups = -(-vectors * self._vector * self._itemsize // most_bytes)
        return max(1, -(-vectors // max(1, groups))), groups
