"""How every target allocates arrays, inside and outside of a recording."""

from __future__ import annotations

from typing import Any

from .elementwise import Elementwise
from .recording import current
from .target import Target
from .types import Array, Shape

_ZERO = Elementwise("fill_zeros", "", "T y", "0", new=True)


class Allocator:
    """Base of the targets: allocates arrays by a target's own `fresh`."""

    def empty(self: Target, shape: Shape, dtype: Any) -> Array:
        """Return an uninitialised C-contiguous array, in a recording from its arena."""
        recording = current()
        if recording is None:
            return self.fresh(shape, dtype)
        array = recording.arena.array(shape, dtype)
        recording.made(array)
        return array

    def zeros(self: Target, shape: Shape, dtype: Any) -> Array:
        """Return an array of zeros; every replay of a recording zeroes it again."""
        array = self.empty(shape, dtype)
        if current() is None:
            with self.on():
                array.fill(0)
        else:
            _ZERO(self, array.dtype, array)
        return array

    def kept(self: Target, shape: Shape, dtype: Any) -> Array:
        """Return an uninitialised array that keeps its values between replays of a recording."""
        array, recording = self.fresh(shape, dtype), current()
        if recording is not None:
            recording.keep(array)
        return array

    def counters(self: Target, count: int) -> Array:
        """Return int32 zeros for a launch that leaves them zero, as the next replay needs them."""
        array = self.kept((count,), "int32")
        with self.on():
            array.fill(0)
        return array
