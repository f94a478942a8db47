"""The `cpu` target: kernels compiled by the system's C++ compiler and loaded with ctypes."""

from __future__ import annotations

import ctypes
import struct
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property, partial
from typing import Any

import numpy as np

from . import blocks
from .allocator import Allocator
from .compiler import compiler
from .jobs import run, thread_count
from .program import Parameter, Program, flattened
from .reserve import Reserve
from .types import Array, Binder, Grid, Launch, Shape

FLAGS = (
    "-O3 -march=native -ffp-contract=fast -fno-math-errno -fno-trapping-math -fopenmp-simd -pthread"
).split()
_POOL_SOURCE = "runtime/thread_pool.cpp"
_ELEMENTS_PER_BLOCK = 8192  # enough work to pay for handing a block to another core


class _Bound(ctypes.Structure):
    """BoundLaunch of thread_pool.cpp."""

    _fields_ = [("function", ctypes.c_void_p), ("packed", ctypes.c_void_p)]


class _CpuLaunch:
    """A launch, packed as the compiled function takes it; see `_packing`."""

    def __init__(self, function: Any, packed: bytes, parallel_for: Any) -> None:
        self._function, self._packed, self._parallel_for = function, packed, parallel_for

    def __call__(self) -> None:
        """Launch."""
        self._function(self._packed, self._parallel_for)

    def bound(self) -> _Bound:
        """Return the launch for a replay in C++, valid while this object lives."""
        parts = self._function, ctypes.c_char_p(self._packed)
        return _Bound(*(ctypes.cast(part, ctypes.c_void_p) for part in parts))


class CpuTarget(Allocator):
    """The machine's own cores; arrays are NumPy's."""

    name = "cpu"
    dtypes: tuple[str, ...] = ("float32", "float64")
    precisions: tuple[str, ...] = ("fp32",)
    in_lanes = True
    shared_bytes = 2**21
    threads = 1
    multiprocessors = 1

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._library: Any = None  # of the thread pool
        self._openmp: tuple[Any, Any] | None = None  # as share_openmp takes it
        self._reserve = Reserve()

    def __repr__(self) -> str:
        """Return the name that messages use."""
        return self.name

    @cached_property
    def blocks(self) -> blocks.Blocks:
        """Sizes that depend on this machine's caches."""
        return blocks.chosen(self._register_bytes)

    @cached_property
    def constants(self) -> dict[str, int]:
        """The GEMM's panel of operand B, and the size from which kernels use streaming stores."""
        sizes = self.blocks
        return {"BM": 1, "BN": blocks.BN, "BK": sizes.BK, "STREAM_BYTES": sizes.stream_bytes}

    @property
    def near_bytes(self) -> int:
        """See Target."""
        return self.blocks.near_bytes

    def binder(self, program: Program, entry: str, constants: dict[str, Any]) -> Binder:
        """Return a function that binds launches of one entry point, compiled or from the cache."""
        # A library has one entry point, so that the compiler can leave out the code of the others.
        library = compiler().load(program.name, program.library(entry, constants), FLAGS)
        function = getattr(library, f"launch_{entry}")
        parallel_for = self._pool().parallel_for
        parameters = program.entries[entry]
        dtypes = [None if p.pointer else p.dtype(constants) for p in parameters]
        pack: Callable[..., bytes] | None = None

        def bind(grid: Grid, threads: int, shared: int, arguments: list[Any]) -> Launch:
            nonlocal pack
            if pack is None:
                pack = _packing(parameters, dtypes, arguments).pack
            values = [
                _packable(value) if dtype is None else value
                for dtype, value in zip(dtypes, arguments, strict=True)
            ]
            return _CpuLaunch(function, pack(*grid, shared, *values), parallel_for)

        return bind

    def stream(self) -> None:
        """Return None: `cpu` has no streams."""

    def on(self, stream: None = None) -> AbstractContextManager[None]:
        """Do nothing."""
        return nullcontext()

    def fresh(self, shape: Shape, dtype: Any) -> Array:
        """Return an uninitialised C-contiguous array with memory of its own."""
        return self._reserve.array(shape, dtype)

    def array(self, values: Any, dtype: Any = None) -> Array:
        """Return values as a C-contiguous array here, copied only where needed."""
        return np.require(values, dtype, ["C_CONTIGUOUS", "ALIGNED"])

    def fill_bytes(self, array: Array, byte: int) -> None:
        """Fill a C-contiguous array with a byte."""
        array.reshape(-1).view(np.uint8).fill(byte)

    def address(self, array: Array) -> int:
        """Return the address of an array's first element."""
        return _address(array)

    def stride_grid(self, count: int) -> Grid:
        """Return the grid of a GRID_STRIDE kernel over `count` elements.

        It depends on the count alone, not on the number of cores, and so do results.
        """
        return (min(-(-count // _ELEMENTS_PER_BLOCK), 2**31 - 1), 1, 1)

    def block(self, items: int) -> int:
        """Return the threads of a block: one."""
        return 1

    def replayer(self, launches: list[Launch]) -> Launch:
        """Return a function that runs bound launches in order, by one call into C++."""
        pool = self._pool()
        bound = [launch.bound() for launch in launches if isinstance(launch, _CpuLaunch)]
        table = (_Bound * len(bound))(*bound)
        return partial(pool.replay, table, ctypes.c_longlong(len(bound)), pool.parallel_for)

    def lanes(self, itemsize: int) -> int:
        """Return LANES of ``dialect_cpu.cuh``: the elements of a SIMD register."""
        return self._register_bytes // itemsize

    @cached_property
    def _register_bytes(self) -> int:
        return int(compiler().macro("REGISTER_BYTES"))

    def compile(self, jobs: Iterable[Callable[[], Any]]) -> None:
        """Run jobs, each of which compiles one kernel; as many at a time as there are cores."""
        run(jobs if self._library else (self._pool, *jobs))

    def _pool(self) -> Any:
        """Return the library of the thread pool, which is started the first time."""
        if self._library is None:
            library = compiler().load(_POOL_SOURCE, flattened(_POOL_SOURCE), FLAGS)
            with self._lock:
                if self._openmp is None:
                    library.start_pool(thread_count())
                else:
                    library.use_openmp(*self._openmp)
                self._library = library
        return self._library

    def share_openmp(self, parallel: Any, threads: Any) -> None:
        """Run blocks from now on in the threads of an OpenMP that computes between launches, too.

        Parameters
        ----------
        parallel, threads : C functions
            Its ``GOMP_parallel``, and one that returns how many threads to use.
        """
        with self._lock:
            self._openmp = parallel, threads
            if self._library is not None:
                self._library.use_openmp(parallel, threads)


def _packing(
    parameters: Sequence[Parameter], dtypes: Sequence[Any], arguments: Sequence[Any]
) -> struct.Struct:
    """Return how launches are packed, as EXPORT_LAUNCH of ``dialect_cpu.cuh`` takes them.

    That is the grid, the bytes of dynamic shared memory, and the arguments, each aligned as C++
    aligns its type: addresses, structures and scalars.
    """
    codes = [
        "P" if p.pointer else _code(value) if dtype is None else dtype.char
        for p, dtype, value in zip(parameters, dtypes, arguments, strict=True)
    ]
    return struct.Struct("".join(("4I", *codes)))


def _code(value: ctypes.Structure) -> str:
    """Return the code for a structure's bytes, at an address that suits its members."""
    aligned = {4: "0i", 8: "0q"}[ctypes.alignment(value)]
    return f"{aligned}{ctypes.sizeof(value)}s"


def _packable(value: Any) -> int | bytes:
    """Return an array's address, 0 for None, and the bytes of a structure."""
    if value is None:
        return 0
    return _address(value) if isinstance(value, np.ndarray) else bytes(value)


def _address(array: Array) -> int:
    """Return the address of an array's first element; takes a third as long as `array.ctypes`."""
    try:
        return ctypes.addressof(ctypes.c_char.from_buffer(array))
    except (TypeError, ValueError):  # read-only, or empty
        return int(array.ctypes.data)
