"""The interface of a target: arrays, launch geometry, compiling and replays."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any, Protocol

from .program import Program
from .types import Array, Binder, Grid, Launch, Shape


class Target(Protocol):
    """A device that kernels are compiled for and run on."""

    name: str  #: "cpu" or "cuda"
    dtypes: tuple[str, ...]  #: floating types that kernels take here
    #: Whether a block is one thread that computes in SIMD lanes. It chooses between the two bodies
    #: of kernels that have one for such blocks and one for blocks of many threads.
    in_lanes: bool
    shared_bytes: int  #: most shared memory of a block without opting in to more

    @property
    def multiprocessors(self) -> int:
        """A GPU's multiprocessors, among which blocks of many threads are divided; else 1."""

    @property
    def constants(self) -> dict[str, int]:
        """What every kernel is compiled with here."""

    @property
    def near_bytes(self) -> int:
        """Most bytes of an input, read several times, that kernels copy to shared memory.

        That is a part of a core's own cache, or what every GPU lets a block have.
        """

    @property
    def precisions(self) -> tuple[str, ...]:
        """Precisions in which float32 arrays can be multiplied; see gemm/precision.py."""

    def binder(self, program: Program, entry: str, constants: dict[str, Any]) -> Binder:
        """Return a function that binds launches of one entry point, compiled or from the cache."""

    def stream(self) -> Any:
        """Return the current stream, or None on a target without streams."""

    def on(self, stream: Any = None) -> AbstractContextManager[None]:
        """Make the device, and the stream if given, the current ones in a ``with`` block.

        Work launched in the block runs after all earlier work of the outer stream, and before all
        its later work.
        """

    def fresh(self, shape: Shape, dtype: Any) -> Array:
        """Return an uninitialised C-contiguous array with memory of its own."""

    def empty(self, shape: Shape, dtype: Any) -> Array:
        """Return an uninitialised C-contiguous array, in a recording from its arena."""

    def zeros(self, shape: Shape, dtype: Any) -> Array:
        """Return an array of zeros; every replay of a recording zeroes it again."""

    def kept(self, shape: Shape, dtype: Any) -> Array:
        """Return an uninitialised array that keeps its values between replays of a recording."""

    def counters(self, count: int) -> Array:
        """Return int32 zeros for a launch that leaves them zero, as the next replay needs them."""

    def array(self, values: Any, dtype: Any = None) -> Array:
        """Return values as a C-contiguous array here, copied only where needed."""

    def fill_bytes(self, array: Array, byte: int) -> None:
        """Fill a C-contiguous array with a byte."""

    def address(self, array: Array) -> int:
        """Return the address of an array's first element."""

    def stride_grid(self, count: int) -> Grid:
        """Return the grid of a GRID_STRIDE kernel over `count` elements."""

    def replayer(self, launches: list[Launch]) -> Callable[[], None]:
        """Return a function that runs bound launches in order, with little work on the host."""

    def lanes(self, itemsize: int) -> int:
        """Return how many elements of `itemsize` bytes a thread computes at once."""

    def compile(self, jobs: Iterable[Callable[[], Any]]) -> None:
        """Run jobs, each of which compiles one kernel; several at a time if that is faster."""

    @property
    def threads(self) -> int:
        """Threads per block of a kernel that admits any block size."""

    def block(self, items: int) -> int:
        """Return the threads of a block that shares so many items: no more than `threads`."""
