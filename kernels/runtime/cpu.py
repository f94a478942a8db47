"""The `cpu` target: kernels compiled by the system's C++ compiler and loaded with ctypes."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from . import cache
from .errors import KernelError
from .source import PACKAGE, Source
from .target import Array, Grid, Kernel, Shape

_FLAGS = (
    "-std=c++17 -O3 -march=native -ffp-contract=fast -fno-math-errno -fno-trapping-math -fopenmp-simd "
    "-fPIC -shared -fvisibility=hidden -pthread"
).split()
_POOL_SOURCE = PACKAGE / "runtime" / "thread_pool.cpp"
_ELEMENTS_PER_BLOCK = 8192  # work enough to outweigh handing a block to another core


class CpuTarget:
    """The machine's own cores; arrays are NumPy's."""

    name = "cpu"
    #: The GEMM's tile: both panels in the second-level cache, a micro-tile's part in the first.
    constants = {"BM": 256, "BN": 64, "BK": 256}
    dtypes = ("float32", "float64")
    threads = 1

    def __init__(self) -> None:
        self._libraries: dict[str, ctypes.CDLL] = {}
        self._lock = threading.Lock()
        self._parallel_for: Any = None

    def __repr__(self) -> str:
        """Return the name that messages use."""
        return self.name

    def kernel(self, source: Source, entry: str, constants: dict[str, Any]) -> Kernel:
        """Compile, or load from the cache, one entry point."""
        function = getattr(self._library(source, constants), f"launch_{entry}")
        parallel_for = self._pool()

        def launch(grid: Grid, threads: int, arguments: list[Any]) -> None:
            # An array is passed as the address of a pointer to its data, a scalar as its address.
            held = [
                ctypes.c_void_p(None if value is None else value.ctypes.data)
                if value is None or isinstance(value, np.ndarray)
                else value
                for value in arguments
            ]
            pointers = (ctypes.c_void_p * len(held))(*[ctypes.addressof(value) for value in held])
            function((ctypes.c_uint * 3)(*grid), pointers, parallel_for)

        return Kernel(entry, source.entries[entry], constants, launch)

    def empty(self, shape: Shape, dtype: Any) -> Array:
        """Return an uninitialised C-contiguous array."""
        return np.empty(shape, dtype)

    def zeros(self, shape: Shape, dtype: Any) -> Array:
        """Return an array of zeros."""
        return np.zeros(shape, dtype)

    def array(self, values: Any, dtype: Any = None) -> Array:
        """Return values as a C-contiguous array here, copied only where needed."""
        return np.ascontiguousarray(values, dtype)

    def stride_grid(self, count: int) -> Grid:
        """Return the grid of a GRID_STRIDE kernel over `count` elements.

        It depends on the count alone, not on the cores, so that results do not either.
        """
        return (min(-(-count // _ELEMENTS_PER_BLOCK), 2**31 - 1), 1, 1)

    def prepare(self, jobs: list[tuple[Source, dict[str, Any]]]) -> None:
        """Compile what the cache lacks, one compiler per core at a time."""
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(thread_count()) as executor:
            pool = executor.submit(self._pool)
            for result in [executor.submit(self._library, *job) for job in jobs] + [pool]:
                result.result()

    def _library(self, source: Source, constants: dict[str, Any]) -> ctypes.CDLL:
        exports = "".join(f"EXPORT_LAUNCH({entry})\n" for entry in source.entries)
        return self._load(source.name, source.specialised(constants) + exports)

    def _pool(self) -> Any:
        if self._parallel_for is None:
            library = self._load("runtime/thread_pool.cpp", _POOL_SOURCE.read_text())
            with self._lock:
                library.start_pool(thread_count())
            self._parallel_for = library.parallel_for
        return self._parallel_for

    def _load(self, name: str, text: str) -> ctypes.CDLL:
        library = self._libraries.get(text)
        if library is None:
            key = hashlib.sha256("\0".join([text, *_FLAGS, compiler().identity]).encode())
            build = f"{Path(name).stem}-{key.hexdigest()[:32]}"
            path = cache.find(build) or cache.store(build, compiler().compile(name, text))
            library = self._libraries[text] = ctypes.CDLL(str(path))
        return library


class Compiler:
    """The system's C++ compiler.

    Attributes
    ----------
    command : list of str
        ``$CXX``, or the first of c++, g++ and clang++ that is there.
    identity : str
        Its predefined macros: they name its version and the instruction set it compiles for.
    """

    def __init__(self) -> None:
        chosen = os.environ.get("CXX")
        candidates = [shlex.split(chosen)] if chosen else [["c++"], ["g++"], ["clang++"]]
        found = [words for words in candidates if words and shutil.which(words[0])]
        if not found:
            names = " ".join(chosen.split()) if chosen else "c++, g++, clang++"
            raise KernelError(
                f"the cpu target needs a C++17 compiler and none was found (looked for {names}); "
                "install one (Debian and Ubuntu: apt install g++) or name it in CXX"
            )
        self.command = found[0]
        self.identity = self._run("a query of its macros", ["-dM", "-E", "-x", "c++", "-"], "")

    def compile(self, name: str, text: str) -> bytes:
        """Return the shared library made of a text; `name` is what errors call it."""
        with tempfile.TemporaryDirectory(prefix="kernels-") as folder:
            output = Path(folder) / "library.so"
            self._run(f"{PACKAGE.name}/{name}", ["-x", "c++", "-", "-o", str(output)], text)
            return output.read_bytes()

    def _run(self, what: str, options: list[str], text: str) -> str:
        command = [*self.command, *_FLAGS, *options]
        try:
            done = subprocess.run(command, input=text, capture_output=True, text=True)
        except OSError as error:
            reason = error.strerror or str(error)
            raise KernelError(f"the compiler {self.command[0]} did not run: {reason}") from error
        if done.returncode != 0:
            lines = done.stderr.strip().splitlines() or ["it said nothing"]
            first = next((line for line in lines if "error" in line), lines[-1])
            raise KernelError(
                f"the compiler {self.command[0]} failed on {what} "
                f"(exit status {done.returncode}): {first.strip()}"
            )
        return done.stdout


@lru_cache(maxsize=None)
def compiler() -> Compiler:
    """Return the compiler, found and asked for its identity once."""
    return Compiler()


def thread_count() -> int:
    """Return the threads of a launch: ``$KERNELS_THREADS``, or the cores this process may use."""
    chosen = os.environ.get("KERNELS_THREADS")
    if not chosen:
        return len(os.sched_getaffinity(0))
    if not chosen.isdecimal() or int(chosen) < 1:
        raise KernelError(f"KERNELS_THREADS: got {chosen!r}, expected a whole number of at least 1")
    return int(chosen)
