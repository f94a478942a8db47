"""Plain types of the runtime, and the limits of its numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Shape = tuple[int, ...]
Array = Any  #: numpy.ndarray on `cpu`, cupy.ndarray on `cuda`
Grid = tuple[int, int, int]
#: A launch whose arguments are checked and packed.
Launch = Callable[[], None]
#: Takes the grid, the threads and bytes of dynamic shared memory per block, and the checked
#: arguments, one per parameter; packs them. Scalars are kept, of arrays the addresses alone.
Binder = Callable[[Grid, int, int, list[Any]], Launch]

INT32_MAX = 2**31 - 1
GRID_YZ_MAX = 65535  # CUDA's limit, kept on every target
