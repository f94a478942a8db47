"""Arrays of a target: large ones from memory kept for them, a recording's from an arena."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from .elementwise import Elementwise
from .recording import current
from .target import Target
from .types import Array, Shape

_ALIGNMENT = 64  # bytes: a cache line, so a vector register too
_LEAST_CHUNK = 2**20  # bytes: smaller arrays of an arena share one allocation
_LEAST_KEPT = 2**17  # bytes: for more, the C library asks the system
_MOST_KEPT = 2**27  # bytes of large arrays that are gone
_MOST_ARRAYS_KEPT = 64  # which are looked through for every new one

_ZERO = Elementwise("fill_zeros", "", "T y", "0", new=True)


def empty(target: Target, shape: Shape, dtype: Any) -> Array:
    """Return an uninitialised C-contiguous array; of a recording's arena while there is one."""
    recording = current()
    if recording is None:
        return target.fresh(shape, dtype)
    array = recording.arena.array(shape, dtype)
    recording.made(array)
    return array


def kept(target: Target, shape: Shape, dtype: Any) -> Array:
    """Return an uninitialised array whose values last from replay to replay of a recording."""
    array, recording = target.fresh(shape, dtype), current()
    if recording is not None:
        recording.keep(array)
    return array


def zeros(target: Target, shape: Shape, dtype: Any) -> Array:
    """Return an array of zeros; in a recording, zeroed again by every replay."""
    array = target.empty(shape, dtype)
    if current() is None:
        with target.on():
            array.fill(0)
    else:
        _ZERO(target, array.dtype, array)
    return array


class Arena:
    """Memory for arrays that come and go in the same order time and again.

    A block goes back with the last reference to its array, views included, and serves later arrays;
    the memory itself stays until nothing refers to the arena.

    Attributes
    ----------
    target : Target
        Whose memory it is.
    stream : stream or None
        Of a GPU, the current one when the arena was made; all that uses its memory runs there.
    bytes : int
        Memory taken so far.
    """

    def __init__(self, target: Target) -> None:
        self.target = target
        self.stream = target.stream()
        self.bytes = 0
        self._chunks: list[tuple[int, int, Array]] = []  # first and last address, memory
        self._free: dict[int, int] = {}  # address -> bytes
        # Blocks given back. The garbage collector may do so at any moment, also in the middle of
        # `array`, so they join the free ones only when the next array is asked for.
        self._returned: list[tuple[int, int]] = []

    def array(self, shape: Shape, dtype: Any) -> Array:
        """Return an uninitialised array whose memory goes back with its last reference."""
        dtype = np.dtype(dtype)
        count = math.prod(shape) * dtype.itemsize
        size = max(1, -(-count // _ALIGNMENT)) * _ALIGNMENT
        address = self._take(size)
        block = _Block(address, size, partial(self.give_back, address, size))
        return self.target.array(block)[:count].view(dtype).reshape(shape)

    def owns(self, array: Array) -> bool:
        """Whether an array's memory is the arena's."""
        address = self.target.address(array)
        return any(first <= address < last for first, last, _ in self._chunks)

    def poison(self) -> None:
        """Fill all of the memory with bytes 0xFF: NaN, or -1."""
        for _, _, memory in self._chunks:
            memory.fill(0xFF)

    def give_back(self, address: int, size: int) -> None:
        """Take back a block."""
        self._returned.append((address, size))

    def _take(self, size: int) -> int:
        """Return the address of a block: of the smallest free one that is large enough."""
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
        """Return bytes and address of new memory."""
        size = max(size, _LEAST_CHUNK)
        memory = self.target.fresh((size + _ALIGNMENT,), np.uint8)
        begin = self.target.address(memory)
        self._chunks.append((begin, begin + size + _ALIGNMENT, memory))
        self.bytes += size + _ALIGNMENT
        return size, -(-begin // _ALIGNMENT) * _ALIGNMENT

    def _join(self) -> None:
        """Make one of free blocks that are neighbours."""
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


class Reserve:
    """Keeps the memory of large NumPy arrays that are gone for later ones of the same size.

    The C library would give it back to the system at once, and the first touch of what the system
    gives anew takes longer than most kernels do. Of what is kept, the oldest goes first.
    """

    def __init__(self) -> None:
        self._kept: dict[int, Array] = {}  # id -> memory, in the order in which it came

    def array(self, shape: Shape, dtype: Any) -> Array:
        """Return an uninitialised array; the memory of a large one is kept after its last use."""
        dtype = np.dtype(dtype)
        count = math.prod(shape) * dtype.itemsize
        if count < _LEAST_KEPT:
            return np.empty(shape, dtype)
        memory = self._take(count + _ALIGNMENT)
        address = -(-memory.ctypes.data // _ALIGNMENT) * _ALIGNMENT
        block = _Block(address, count, partial(self._keep, memory))
        return np.asarray(block).view(dtype).reshape(shape)

    # The garbage collector may call `_keep` at any moment, also in the middle of these two: they
    # only use what a dict does in one go.
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


class _Block:
    """The memory of one array, which holds it as its base, and what is done when that is gone."""

    def __init__(self, address: int, size: int, give_back: Callable[[], None]) -> None:
        self._address, self._size, self._give_back = address, size, give_back

    def __del__(self) -> None:
        self._give_back()

    @property
    def __array_interface__(self) -> dict[str, Any]:
        data = (self._address, False)
        return {"shape": (self._size,), "typestr": "|u1", "data": data, "version": 3}

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return self.__array_interface__
