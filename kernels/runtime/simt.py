"""The `simt` target: a GPU's blocks and warps on a CPU, every access checked; for tests.

See simt.cpp for what it checks. ``KERNELS_TARGET=simt`` makes NumPy arrays run on it.
"""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import threading
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from . import memory
from .compiler import compiler
from .cuda import CudaTarget
from .errors import KernelError
from .recording import Launch, in_order
from .source import Source, flattened
from .target import Array, Binder, Grid, Kernel, Shape

_FLAGS = ["-O1", "-g1", "-gdwarf-4", "-ffp-contract=off", "-DKERNELS_SIMT"]
# The compiler then calls a function of ours before every load and store.
_INSTRUMENT = "-fsanitize=thread"
_ORDERS = ("forward", "reverse", "random")


class _Argument(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p), ("begin", ctypes.c_void_p), ("bytes", ctypes.c_longlong)]


class _Launch(ctypes.Structure):
    _fields_ = [
        ("kernel", ctypes.c_char_p),
        ("grid", ctypes.c_uint * 3),
        ("threads", ctypes.c_uint),
        ("shared_bytes", ctypes.c_uint),
        ("order", ctypes.c_int),
        ("seed", ctypes.c_ulonglong),
        ("arguments", ctypes.c_int),
        ("argument", ctypes.POINTER(_Argument)),
        ("visited", ctypes.c_void_p),
        ("visited_bytes", ctypes.c_longlong),
    ]


class SimtError(KernelError):
    """A kernel did what a GPU would not survive: a race, a lost barrier, a wild access."""


class SimtTarget:
    """Blocks of 32-lane warps as fibers; arrays are NumPy's.

    Attributes
    ----------
    order : {"forward", "reverse", "random"}
        In which lanes and blocks run; a result that depends on it is a race.
    seed : int
        Of the random order.
    visited : dict of Path to uint8 array, optional
        If set to a dict, it is filled with an entry for each library that ran: 1 at the return
        address of every load and store that was executed.
    """

    name = "simt"
    constants = CudaTarget.constants
    dtypes: tuple[str, ...] = ("float32", "float64")
    precisions: tuple[str, ...] = ("fp32", "tf32", "bf16", "fp16")
    near_bytes = CudaTarget.near_bytes
    threads = CudaTarget.threads

    def __init__(self) -> None:
        self.order = "forward"
        self.seed = 0
        self.visited: dict[Path, np.ndarray[Any, Any]] | None = None
        self._libraries: dict[str, tuple[Path, ctypes.CDLL]] = {}
        self._alone = threading.Lock()  # one block runs at a time
        self._runtime: ctypes.CDLL | None = None

    def __repr__(self) -> str:
        """Return the name that messages use."""
        return self.name

    def binder(self, source: Source, entry: str, constants: dict[str, Any]) -> Binder:
        """Compile, or load from the cache, one entry point; return what binds its launches."""
        path, library = self._library(source, constants)
        function = getattr(library, f"launch_{entry}")
        function.restype = ctypes.c_char_p
        names = [parameter.name for parameter in source.entries[entry]]

        def bind(grid: Grid, threads: int, shared: int, arguments: list[Any]) -> Launch:
            held, arrays = [], []
            for name, value in zip(names, arguments, strict=True):
                if isinstance(value, np.ndarray):
                    arrays.append(_Argument(name.encode(), value.ctypes.data, value.nbytes))
                    held.append(ctypes.c_void_p(value.ctypes.data))
                else:
                    held.append(ctypes.c_void_p() if value is None else value)
            pointers = (ctypes.c_void_p * len(held))(*[ctypes.addressof(value) for value in held])
            call = _Launch(
                kernel=entry.encode(),
                grid=grid,
                threads=threads,
                shared_bytes=shared,
                arguments=len(arrays),
                argument=(_Argument * len(arrays))(*arrays),
            )

            def launch(held: list[Any] = held) -> None:  # keeps what the pointers point to
                call.order, call.seed = _ORDERS.index(self.order), self.seed
                if self.visited is not None:
                    empty = np.zeros(path.stat().st_size, np.uint8)
                    marks = self.visited.setdefault(path, empty)
                    call.visited, call.visited_bytes = marks.ctypes.data, marks.size
                with self._alone:
                    fault = function(ctypes.byref(call), pointers)
                if fault is not None:
                    raise SimtError(_with_lines(fault.decode(), path))

            return launch

        return bind

    def stream(self) -> None:
        """Return None: there is one order of launches."""

    def on(self, stream: None = None) -> AbstractContextManager[None]:
        """Do nothing."""
        return nullcontext()

    def fresh(self, shape: Shape, dtype: Any) -> Array:
        """Return an uninitialised C-contiguous array with memory of its own."""
        return np.empty(shape, dtype)

    def empty(self, shape: Shape, dtype: Any) -> Array:
        """Return an uninitialised C-contiguous array; of a recording's arena while there is one."""
        return memory.empty(self, shape, dtype)

    def zeros(self, shape: Shape, dtype: Any) -> Array:
        """Return an array of zeros; in a recording, zeroed again by every replay."""
        return memory.zeros(self, shape, dtype)

    def array(self, values: Any, dtype: Any = None) -> Array:
        """Return values as a C-contiguous array here, copied only where needed."""
        return np.require(values, dtype, ["C_CONTIGUOUS", "ALIGNED"])

    def address(self, array: Array) -> int:
        """Return the address of an array's first element."""
        return int(array.ctypes.data)

    def replayer(self, launches: list[Launch]) -> Launch:
        """Return what runs bound launches in order."""
        return partial(in_order, launches)

    def stride_grid(self, count: int) -> Grid:
        """Return the grid of a GRID_STRIDE kernel over `count` elements: cuda's, but smaller.

        Few blocks, so that threads come round the grid more than once in small tests too.
        """
        return (min(-(-count // self.threads), 4), 1, 1)

    def lanes(self, itemsize: int) -> int:
        """Return how many elements one thread treats as a unit: one."""
        return 1

    def compile(self, kernels: Iterable[Kernel]) -> None:
        """Compile what the cache lacks of these kernels."""
        for kernel in kernels:
            kernel.compile()

    def _library(self, source: Source, constants: dict[str, Any]) -> tuple[Path, ctypes.CDLL]:
        if self._runtime is None:
            text = flattened("runtime/simt.cpp")
            flags = ["-O2", "-fvisibility=default"]
            self._runtime = compiler().load(
                "runtime/simt.cpp", text, flags, mode=ctypes.RTLD_GLOBAL
            )
        text = source.library(source.entries, constants)
        found = self._libraries.get(text)
        if found is None:
            # With CXX="g++ -fsanitize=address" that sanitizer checks accesses, and not ours.
            sanitized = any(word.startswith("-fsanitize") for word in compiler().command)
            library = compiler().load(source.name, text, _FLAGS, "" if sanitized else _INSTRUMENT)
            found = self._libraries[text] = Path(library._name), library
        return found


def _with_lines(fault: str, library: Path) -> str:
    """Replace {0x...}, an address in the library's code, by its place in the source."""

    def place(match: re.Match[str]) -> str:
        command = ["addr2line", "-e", str(library), match[1]]
        done = subprocess.run(command, capture_output=True, text=True)
        line = done.stdout.split(" ")[0].strip()
        return os.path.relpath(line) if line and not line.startswith("??") else match[1]

    return re.sub(r"\{(0x[0-9a-f]+)\}", place, fault)
