"""Checks and launches of kernels."""

from __future__ import annotations

import ctypes
from functools import partial
from typing import Any

import numpy as np

from .program import Parameter, Program
from .recording import Rehearsal, current
from .target import Target
from .types import GRID_YZ_MAX, Binder, Grid


class Kernel:
    """One entry point, specialised by constants, for one target. Every launch goes through one.

    A call checks the number of arguments, the dtype and contiguity of arrays and the range of
    scalars, converts scalars to their declared C types, and launches nothing for an empty grid. The
    first launch compiles the kernel. In a `Rehearsal`, a call only notes that the kernel is needed.
    """

    def __init__(
        self, target: Target, program: Program, entry: str, constants: dict[str, Any]
    ) -> None:
        self.name = entry
        self._parameters = [
            (p, p.dtype(constants), _scalar_type(p, constants)) for p in program.entries[entry]
        ]
        self._make_binder = partial(target.binder, program, entry, constants)
        self._binder: Binder | None = None

    @property
    def compiled(self) -> bool:
        """Whether the kernel has been compiled, or loaded from the cache."""
        return self._binder is not None

    def compile(self) -> Binder:
        """Compile the kernel or load it from the cache, the first time; return its binder."""
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
        """Check the arguments and convert scalars; return None if the grid is empty."""
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
