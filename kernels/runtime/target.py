"""What every target offers: arrays, geometry and launches."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any, Protocol

from .program import Program
from .types import Array, Binder, Grid, Launch, Shape


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

    def binder(self, program: Program, entry: str, constants: dict[str, Any]) -> Binder:
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

    def kept(self, shape: Shape, dtype: Any) -> Array:
        """Return an uninitialised array whose values last from replay to replay of a recording."""

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

    def compile(self, jobs: Iterable[Callable[[], Any]]) -> None:
        """Run jobs that compile one kernel each, several at a time where that is faster."""

    @property
    def threads(self) -> int:
        """Threads per block of a kernel that admits any block size."""
