"""Reuse of the memory of large NumPy arrays."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np

from .block import ALIGNMENT, Block
from .types import Array, Shape

_LEAST_KEPT = 2**17  # bytes; for arrays this large, malloc maps new pages every time
_MOST_KEPT = 2**27  # bytes
_MOST_ARRAYS_KEPT = 64  # each new array searches all of them


class Reserve:
    """Keeps the memory of large NumPy arrays, when these are gone, for arrays of the same size.

    The C library would return it to the system at once, and the page faults of new memory take
    longer than most kernels. If too much is kept, the oldest is freed first.
    """

    def __init__(self) -> None:
        self._kept: dict[int, Array] = {}  # id -> memory, in the order in which it came

    def array(self, shape: Shape, dtype: Any) -> Array:
        """Return an uninitialised array; if it is large, its memory comes back here later."""
        dtype = np.dtype(dtype)
        count = math.prod(shape) * dtype.itemsize
        if count < _LEAST_KEPT:
            return np.empty(shape, dtype)
        memory = self._take(count + ALIGNMENT)
        address = -(-memory.ctypes.data // ALIGNMENT) * ALIGNMENT
        block = Block(address, count, partial(self._keep, memory))
        return np.asarray(block).view(dtype).reshape(shape)

    # The garbage collector may call `_keep` at any moment, even within these two functions, so they
    # use only atomic operations of a dict.
    def _take(self, size: int) -> Array:
        for memory in list(self._kept.values()):
            if memory.size == size and self._kept.pop(id(memory), None) is not None:
                return memory
        return np.empty(size, np.uint8)

    def _keep(self, memory: Array) -> None:
        self._kept[id(memory)] = memory
        kept = list(self._kept.values())
        excess = sum(memory.size for memory in kept) - _MOST_KEPT
        for position, oldest in enumerate(kept):
            if excess > 0 or len(kept) - position > _MOST_ARRAYS_KEPT:
                self._kept.pop(id(oldest), None)
                excess -= oldest.size
