"""Checks and launches of kernels."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from operator import index
from typing import Any

import numpy as np

from .program import Program
from .recording import Rehearsal, current
from .target import Target
from .types import GRID_YZ_MAX, Binder, Grid


class Kernel:
    """One entry point, specialised by constants, for one target. Every launch goes through one.

    A call checks the number of arguments, the dtype and contiguity of arrays and the range of
    scalars, and launches nothing for an empty grid. The first launch compiles the kernel. In a
    `Rehearsal`, a call only notes that the kernel is needed.
    """

    def __init__(
        self, target: Target, program: Program, entry: str, constants: dict[str, Any]
    ) -> None:
        self.name = entry
        dtypes = [(p, p.dtype(constants)) for p in program.entries[entry]]
        self._parameters = [(p, dtype, _number(dtype)) for p, dtype in dtypes]
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
        checked = self._checked(grid, arguments)
        if checked is None:
            return
        recording = current()
        if isinstance(recording, Rehearsal):
            recording.kernels[self] = None
            return
        launch = self.compile()(grid, threads, shared, checked)
        launch()
        if recording is not None:
            parameters = (parameter for parameter, _, _ in self._parameters)
            pairs = zip(parameters, checked, strict=True)
            recording.add(
                launch, self.name, [(p, a) for p, a in pairs if p.pointer and a is not None]
            )

    def _checked(self, grid: Grid, arguments: tuple[Any, ...]) -> list[Any] | None:
        """Return the arguments, scalars as int or float, or None if the grid is empty."""
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
        checked: list[Any] = []
        for (parameter, dtype, number), value in zip(self._parameters, arguments, strict=True):
            if parameter.pointer:
                if value is not None and (value.dtype != dtype or not value.flags.c_contiguous):
                    raise TypeError(
                        f"{self.name}: {parameter.name}: got {value.dtype}, "
                        f"expected a contiguous array of {dtype}"
                    )
            elif number is None:
                if type(value).__name__ != parameter.type:
                    raise TypeError(
                        f"{self.name}: {parameter.name}: got {value!r}, expected a {parameter.type}"
                    )
            else:
                convert, least, most = number
                value = convert(value)
                if not least <= value <= most:
                    raise ValueError(
                        f"{self.name}: {parameter.name}: got {value}, which does not fit {dtype}"
                    )
            checked.append(value)
        return checked


def _number(dtype: np.dtype[Any] | None) -> tuple[Callable[[Any], Any], Any, Any] | None:
    """Return what makes a scalar of a type an int or float, and its least and greatest value."""
    if dtype is None or dtype.kind not in "iuf":
        return None  # a structure, or an array of bfloat16
    whole = dtype.kind != "f"
    limits: Any = np.iinfo(dtype) if whole else np.finfo(dtype)
    convert: Any = index if whole else float
    return convert, convert(limits.min), convert(limits.max)
