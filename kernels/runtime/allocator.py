"""The arrays of a target, from a recording's arena while there is one."""

from __future__ import annotations

from typing import Any

from .elementwise import Elementwise
from .recording import current
from .target import Target
from .types import Array, Shape

_ZERO = Elementwise("fill_zeros", "", "T y", "0", new=True)


class Allocator:
    """The part of a target that makes arrays: the same for every target."""

    def empty(self: Target, shape: Shape, dtype: Any) -> Array:
        """Return an uninitialised C-contiguous array; of a recording's arena while there is one."""
        recording = current()
        if recording is None:
            return self.fresh(shape, dtype)
        array = recording.arena.array(shape, dtype)
        recording.made(array)
        return array

    def zeros(self: Target, shape: Shape, dtype: Any) -> Array:
        """Return an array of zeros; in a recording, zeroed again by every replay."""
        array = self.empty(shape, dtype)
        if current() is None:
            with self.on():
                array.fill(0)
        else:
            _ZERO(self, array.dtype, array)
        return array

    def kept(self: Target, shape: Shape, dtype: Any) -> Array:
        """Return an uninitialised array whose values last from replay to replay of a recording."""
        array, recording = self.fresh(shape, dtype), current()
        if recording is not None:
            recording.keep(array)
        return array
