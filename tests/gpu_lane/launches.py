"""The package's own launches on a GPU, seen one by one while a program runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from kernels.runtime.kernel import Kernel
from kernels.runtime.program import Parameter, Program


@dataclass(frozen=True)
class Launch:
    """A launch of a kernel: what it is made of, and the call that does it once more."""

    program: Program
    entry: str
    constants: dict[str, Any]
    grid: tuple[int, int, int]
    threads: int
    shared: int
    arguments: list[tuple[Parameter, Any]]  # arrays or None, structures and scalars, by parameter
    run: Callable[[], None]

    def arrays(self) -> Iterator[tuple[Parameter, Any]]:
        """Yield the arrays that are not empty, with their parameters."""
        for parameter, value in self.arguments:
            if parameter.pointer and value is not None and value.size:
                yield parameter, value


@contextmanager
def each(around: Callable[[Launch], None]) -> Iterator[None]:
    """Have `around` do every launch, by its `run`, but for those of a capture.

    CuPy's own launches are not seen.
    """
    import cupy

    compile_ = Kernel.compile

    def watched(self: Kernel) -> Any:
        bind = compile_(self)
        _, program, entry, constants = _built_of(self)
        parameters = program.entries[entry]

        def watched_bind(grid: Any, threads: int, shared: int, values: list[Any]) -> Any:
            run = bind(grid, threads, shared, values)
            arguments = list(zip(parameters, values, strict=True))
            launch = Launch(program, entry, constants, grid, threads, shared, arguments, run)

            def launched() -> None:
                if cupy.cuda.get_current_stream().is_capturing():
                    run()
                else:
                    around(launch)

            return launched

        return watched_bind

    with patch.object(Kernel, "compile", watched):
        yield


def _built_of(kernel: Kernel) -> tuple[Any, Program, str, dict[str, Any]]:
    binder = kernel._make_binder
    return (binder.func, *binder.args)
