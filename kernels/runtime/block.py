"""Memory of one array that is given back with the last reference to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

ALIGNMENT = 64  # bytes: a cache line, and the widest SIMD register


class Block:
    """The base of one array and its views; calls `give_back` when the last of them is gone."""

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
