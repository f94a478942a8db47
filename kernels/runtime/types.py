"""Plain types and numeric limits of the runtime."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Shape = tuple[int, ...]
Array = Any  #: numpy.ndarray on `cpu`, cupy.ndarray on `cuda`
Grid = tuple[int, int, int]
#: A launch whose arguments are checked and packed.
Launch = Callable[[], None]
#: Packs a launch: takes the grid, threads and bytes of dynamic shared memory per block, and the
#: checked arguments, one per parameter: arrays or None, ctypes structures, int and float. A launch
#: holds scalars, but only the addresses of arrays.
Binder = Callable[[Grid, int, int, list[Any]], Launch]

INT32_MAX = 2**31 - 1
GRID_YZ_MAX = 65535  # blocks along y or z: CUDA's limit, checked on every target
