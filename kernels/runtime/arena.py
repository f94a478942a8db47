"""The memory that recordings take their arrays from."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np

from .block import ALIGNMENT, Block
from .target import Target
from .types import Array, Shape

_LEAST_CHUNK = 2**20  # bytes: smaller arrays of an arena share one allocation


class Arena:
    """Memory for arrays that are made and dropped in the same order again and again.

    When the last reference to an array or its views is gone, later arrays reuse its block. The
    memory itself is freed with the last reference to the arena.

    Attributes
    ----------
    target : Target
        The target that allocates the memory.
    stream : stream or None
        The current stream when the arena was made; all work on its memory runs there.
    bytes : int
        Bytes allocated so far.
    """

    def __init__(self, target: Target) -> None:
        self.target = target
        self.stream = target.stream()
        self.bytes = 0
        self._chunks: list[tuple[int, int, Array]] = []  # first and last address, memory
        self._free: dict[int, int] = {}  # address -> bytes
        # The garbage collector may return blocks at any moment, even in the middle of `array`: they
        # join the free blocks at the next call.
        self._returned: list[tuple[int, int]] = []

    def array(self, shape: Shape, dtype: Any) -> Array:
        """Return an uninitialised array; its memory returns here with its last reference."""
        dtype = np.dtype(dtype)
        count = math.prod(shape) * dtype.itemsize
        size = max(1, -(-count // ALIGNMENT)) * ALIGNMENT
        address = self._take(size)
        block = Block(address, size, partial(self.give_back, address, size))
        return self.target.array(block)[:count].view(dtype).reshape(shape)

    def owns(self, array: Array) -> bool:
        """Whether an array's memory is the arena's."""
        address = self.target.address(array)
        return any(first <= address < last for first, last, _ in self._chunks)

    def poison(self) -> None:
        """Fill all memory with bytes 0xFF: NaN in floating arrays, -1 in whole ones."""
        for _, _, memory in self._chunks:
            self.target.fill_bytes(memory, 0xFF)

    def give_back(self, address: int, size: int) -> None:
        """Take back a block."""
        self._returned.append((address, size))

    def _take(self, size: int) -> int:
        """Return the address of a block, cut from the smallest free one that is large enough."""
        self._join()
        fitting = [(free, address) for address, free in self._free.items() if free >= size]
        if not fitting:
            fitting = [self._chunk(size)]
        free, address = min(fitting)
        self._free.pop(address, None)
        if free > size:
            self._free[address + size] = free - size
        return address

    def _chunk(self, size: int) -> tuple[int, int]:
        """Allocate memory and return its bytes and address."""
        size = max(size, _LEAST_CHUNK)
        memory = self.target.fresh((size + ALIGNMENT,), np.uint8)
        begin = self.target.address(memory)
        self._chunks.append((begin, begin + size + ALIGNMENT, memory))
        self.bytes += size + ALIGNMENT
        return size, -(-begin // ALIGNMENT) * ALIGNMENT

    def _join(self) -> None:
        """Free the blocks given back, and merge neighbouring free blocks."""
        if not self._returned:
            return
        while self._returned:
            address, size = self._returned.pop()
            self._free[address] = size
        joined: dict[int, int] = {}
        end = before = -1
        for address in sorted(self._free):
            size = self._free[address]
            if address == end:
                joined[before] += size
            else:
                before = address
                joined[before] = size
            end = address + size
        self._free = joined
