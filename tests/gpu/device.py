"""Turn the emulated GPU on: then `import cupy` finds one GPU, the emulated one.

If there is a real GPU, nothing happens. $EMULATED_GPU names the model: h100 (the default), a100,
rtx4090 or t4.
"""

from __future__ import annotations

import atexit
import ctypes
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import Any

from . import build

_REAL = """
import ctypes
driver = ctypes.CDLL("libcuda.so.1")
count = ctypes.c_int()
found = not driver.cuInit(0) and not driver.cuDeviceGetCount(ctypes.byref(count)) and count.value
raise SystemExit(0 if found else 1)
"""

_OUT_OF_MEMORY = 2  # cudaErrorMemoryAllocation

_library: ctypes.CDLL | None = None
_missing: str | None = None


@cache
def real_gpu() -> bool:
    """Whether an NVIDIA driver answers here and has a GPU."""
    # In a process of its own: CuPy would use a driver that this process has loaded.
    done = subprocess.run([sys.executable, "-I", "-S", "-c", _REAL], stderr=subprocess.DEVNULL)
    return done.returncode == 0


def turn_on() -> None:
    """Build and use the device at the first import of CuPy, unless there is a real GPU.

    If it cannot be built, importing CuPy raises an ImportError that says what is missing.
    """
    on = _library is not None or any(isinstance(finder, _Finder) for finder in sys.meta_path)
    if on or real_gpu():
        return
    if "cupy" in sys.modules:
        raise RuntimeError("CuPy was imported before the emulated GPU was turned on")
    sys.meta_path.insert(0, _Finder())


def missing() -> str | None:
    """Return why the device could not be built, or None if it was, or CuPy was not imported."""
    return _missing


def fault() -> str | None:
    """Return the report of the fault that makes every call fail, or None."""
    if _library is None:
        return None
    report = _library.emulated_fault()
    return report.decode() if report else None


def fresh() -> None:
    """Clear a fault, as if the device were new; arrays and kernels stay."""
    if _library is not None:
        _library.emulated_fresh()


def forget(address: int, size: int) -> bool:
    """Mark bytes of an array as never written; return False if the device is not used."""
    if _library is None:
        return False
    _library.emulated_forget(address, size)
    return True


@contextmanager
def opposite_order() -> Iterator[None]:
    """Run blocks, warps and lanes one by one, last one first.

    A lane runs until it must wait for others. This is slow.

    Raises
    ------
    RuntimeError
        If the device is not used.
    """
    if _library is None:
        raise RuntimeError("only the emulated GPU has an order, and it is not in use")
    _library.emulated_opposite(1)
    try:
        yield
    finally:
        _library.emulated_opposite(0)


@contextmanager
def counting() -> Iterator[dict[str, Any]]:
    """Count what kernels do within a ``with`` block; at its end, fill the dictionary it yields.

    Raises
    ------
    RuntimeError
        If the device is not used: nothing imported CuPy, or there is a real GPU.
    """
    if _library is None:
        raise RuntimeError("only the emulated GPU counts, and it is not in use")
    counted: dict[str, Any] = {}
    _library.emulated_count()
    try:
        yield counted
    finally:
        counted.update(json.loads(_library.emulated_counted()))


class _Finder(importlib.abc.MetaPathFinder):
    """Turns the device on when CuPy is imported for the first time."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if name != "cupy":
            return None
        global _missing
        if _missing is not None:
            raise ImportError(_missing, name="cupy")
        try:
            built = build.build()
        except build.MissingError as error:
            _missing = f"the emulated GPU cannot be built: {error}"
            raise ImportError(_missing, name="cupy") from error
        sys.meta_path.remove(self)
        _load(built)
        spec = importlib.util.find_spec("cupy")
        assert spec is not None and spec.loader is not None
        spec.loader = _Loader(spec.loader)
        return spec


class _Loader(importlib.abc.Loader):
    """Loads CuPy, then makes it compile and allocate as the device needs."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        created: ModuleType | None = self._loader.create_module(spec)
        return created

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        _adapt(module)


def _load(built: build.Built) -> None:
    """Load both libraries, and set CuPy's environment variables for compiling."""
    global _library
    os.environ["CUPY_COMPILE_WITH_PTX"] = "1"
    os.environ["CUPY_ACCELERATORS"] = ""  # CUB's kernels are no part of CuPy's wheel
    os.environ["CUPY_CACHE_DIR"] = str(build.cache() / "kernels")
    assembler = build.assembler()
    if assembler is not None:
        os.environ["EMULATED_GPU_ASSEMBLER"] = str(assembler)
    # CuPy's driver asks for libcuda.so.1 by that name, and gets what has it and is there.
    _library = ctypes.CDLL(str(built.library))
    _library.emulated_fault.restype = ctypes.c_char_p
    _library.emulated_fresh.restype = None
    _library.emulated_opposite.restype = None
    _library.emulated_count.restype = None
    _library.emulated_counted.restype = ctypes.c_char_p
    _library.emulated_forget.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    _library.emulated_forget.restype = None
    parent, _, name = build.EXTENSION.rpartition(".")
    package = importlib.import_module(parent)
    spec = importlib.util.spec_from_file_location(build.EXTENSION, built.extension)
    assert spec is not None and spec.loader is not None, built.extension
    module = importlib.util.module_from_spec(spec)
    sys.modules[build.EXTENSION] = module
    spec.loader.exec_module(module)
    setattr(package, name, module)


def _adapt(cupy: Any) -> None:
    """Give every array its own memory, and every kernel line numbers of its text.

    CuPy's headers are compiled once per process: they take half of the time of each of its kernels.
    """
    memory, runtime = cupy.cuda.memory, cupy.cuda.runtime

    def allocate(size: int) -> Any:
        # As CuPy's pool, whose arrays would lie side by side.
        try:
            return memory.MemoryPointer(memory.Memory(size), 0)
        except runtime.CUDARuntimeError as error:
            if error.status != _OUT_OF_MEMORY:
                raise
            raise memory.OutOfMemoryError(size, -1) from error

    cupy.cuda.set_allocator(allocate)
    program = cupy.cuda.compiler._NVRTCProgram
    compile_ = program.compile

    precompiled = ("--pch", f"--pch-dir={_folder_of_this_process()}")

    def compile_with_lines(self: Any, options: Any = (), *arguments: Any) -> Any:
        headers = precompiled if "#include <cupy/" in self.src else ()
        return compile_(self, (*options, "-lineinfo", *headers), *arguments)

    program.compile = compile_with_lines


def _folder_of_this_process() -> str:
    """Return a temporary folder that is removed when this process, not a fork of it, ends."""
    folder, owner = tempfile.mkdtemp(prefix="emulated-gpu-"), os.getpid()
    atexit.register(lambda: os.getpid() == owner and shutil.rmtree(folder, ignore_errors=True))
    return folder
