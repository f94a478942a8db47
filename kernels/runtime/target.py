"""What every target offers: arrays, geometry and typed kernels."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from .recording import Rehearsal, current
from .types import GRID_YZ_MAX, Array, Binder, Grid, Launch, Shape

if TYPE_CHECKING:
    from .source import Parameter, Source


class Target(Protocol):
    """Where kernels run."""

    name: str
    constants: dict[str, int]
    dtypes: tuple[str, ...]  #: floating types that kernels take here
    #: Shared memory for what a block would else read again from afar: what of it stays in a core's
    #: own cache, 0 where other threads hide the time that takes.
    near_bytes: int

    @property
    def precisions(self) -> tuple[str, ...]:
        """In which the products of float32 arrays can be taken; see gemm.precision."""

    def binder(self, source: Source, entry: str, constants: dict[str, Any]) -> Binder:
        """Compile, or load from the cache, one entry point; return what binds its launches."""

    def stream(self) -> Any:
        """Return the current stream, None where there are no streams."""

    def on(self, stream: Any = None) -> AbstractContextManager[None]:
        """Make the device, and a stream of it where given, the current ones for a while.

        What is launched meanwhile comes after all that the current stream was given before, and
        ahead of all that it is given later.
        """

    def fresh(self, shape: Shape, dtype: Any) -> Array:
        """Return an uninitialised C-contiguous array with memory of its own."""

    def empty(self, shape: Shape, dtype: Any) -> Array:
        """Return an uninitialised C-contiguous array; of a recording's arena while there is one."""

    def zeros(self, shape: Shape, dtype: Any) -> Array:
        """Return an array of zeros; in a recording, zeroed again by every replay."""

    def array(self, values: Any, dtype: Any = None) -> Array:
        """Return values as a C-contiguous array here, copied only where needed."""

    def address(self, array: Array) -> int:
        """Return the address of an array's first element."""

    def stride_grid(self, count: int) -> Grid:
        """Return the grid of a GRID_STRIDE kernel over `count` elements."""

    def replayer(self, launches: list[Launch]) -> Callable[[], None]:
        """Return what runs bound launches in order, with as little work on the host as can be."""

    def lanes(self, itemsize: int) -> int:
        """Return how many elements of that many bytes one thread treats as a unit."""

    def compile(self, kernels: Iterable[Kernel]) -> None:
        """Compile what the cache lacks of these kernels, several at a time where that is faster."""

    @property
    def threads(self) -> int:
        """Threads per block of a kernel that admits any block size."""


class Kernel:
    """One entry point under some constants; the only way a kernel is launched.

    Checks the number of arguments, the dtype and contiguity of every array and the range of every
    scalar, converts each to its declared C type, and skips an empty grid. The first launch compiles
    it, unless that is done already. A `Rehearsal` only takes note of a launch.
    """

    def __init__(
        self, target: Target, source: Source, entry: str, constants: dict[str, Any]
    ) -> None:
        self.name = entry
        self._parameters = [
            (p, p.dtype(constants), _scalar_type(p, constants)) for p in source.entries[entry]
        ]
        self._make_binder = partial(target.binder, source, entry, constants)
        self._binder: Binder | None = None

    def compile(self) -> Binder:
        """Compile it, or load it from the cache, once."""
        if self._binder is None:
            self._binder = self._make_binder()
        return self._binder

    def __call__(self, grid: Grid, threads: int, *arguments: Any, shared: int = 0) -> None:
        """Launch over `grid` blocks of `threads` threads and `shared` dynamic bytes each."""
        packed = self._packed(grid, arguments)
        if packed is None:
            return
        recording = current()
        if isinstance(recording, Rehearsal):
            recording.kernels[self] = None
            return
        launch = self.compile()(grid, threads, shared, packed)
        launch()
        if recording is not None:
            parameters = (parameter for parameter, _, _ in self._parameters)
            pairs = zip(parameters, packed, strict=True)
            recording.add(
                launch, self.name, [(p, a) for p, a in pairs if p.pointer and a is not None]
            )

    def _packed(self, grid: Grid, arguments: tuple[Any, ...]) -> list[Any] | None:
        """Return the arguments checked and scalars converted; None if there is nothing to do."""
        if len(arguments) != len(self._parameters):
            raise TypeError(
                f"{self.name}: got {len(arguments)} arguments, expected {len(self._parameters)}"
            )
        if 0 in grid:
            return None
        if max(grid[1:]) > GRID_YZ_MAX:
            raise ValueError(
                f"{self.name}: got a grid of {grid} blocks, expected at most {GRID_YZ_MAX} "
                "along y and z; there are too many groups, filters or taps"
            )
        packed: list[Any] = []
        for (parameter, dtype, scalar), value in zip(self._parameters, arguments, strict=True):
            name = parameter.name
            if parameter.pointer:
                if value is not None and (value.dtype != dtype or not value.flags.c_contiguous):
                    raise TypeError(
                        f"{self.name}: {name}: got {value.dtype}, "
                        f"expected a contiguous array of {dtype}"
                    )
                packed.append(value)
            elif scalar is None:
                if type(value).__name__ != parameter.type:
                    raise TypeError(
                        f"{self.name}: {name}: got {value!r}, expected a {parameter.type}"
                    )
                packed.append(value)
            else:
                packed.append(_scalar(self.name, name, value, scalar))
        return packed


def _scalar_type(parameter: Parameter, constants: dict[str, Any]) -> Any:
    dtype = parameter.dtype(constants)
    if parameter.pointer or dtype is None:
        return None
    return np.ctypeslib.as_ctypes_type(dtype)


def _scalar(kernel: str, name: str, value: Any, c_type: Any) -> Any:
    if issubclass(c_type, (ctypes.c_float, ctypes.c_double)):
        return c_type(float(value))
    number = c_type(value)
    if number.value != value:
        raise ValueError(f"{kernel}: {name}: got {value}, which does not fit {c_type.__name__}")
    return number
