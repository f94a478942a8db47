"""A block of memory that calls back when the last array in it is gone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

ALIGNMENT = 64  # bytes: a cache line, so a vector register too


class Block:
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
