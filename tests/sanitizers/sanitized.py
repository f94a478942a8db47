"""Run a Python module that a sanitizer watches, with every array in a block of its own.

    python -m tests.sanitizers.sanitized pytest tests/kernels/test_dense.py

For sanitize.py, which sets LD_PRELOAD, PYTHONMALLOC and the rest.
"""

import ctypes
import os
import runpy
import sys
from pathlib import Path

import numpy as np

from kernels.runtime.compiler import compiler

_GET_HANDLER = 305  # PyDataMem_GetHandler's place in NumPy's table of C functions


class _Handler(ctypes.Structure):
    """NumPy's PyDataMem_Handler."""

    _fields_ = [
        ("name", ctypes.c_char * 127),
        ("version", ctypes.c_uint8),
        ("context", ctypes.c_void_p),
        ("malloc", ctypes.c_void_p),
        ("calloc", ctypes.c_void_p),
        ("realloc", ctypes.c_void_p),
        ("free", ctypes.c_void_p),
    ]


def take_numpys_cache_away() -> None:
    """Make NumPy return every block that it frees to malloc, in all threads.

    It would keep those of up to 1 KiB, and give them to arrays of another size than they were made
    for: their red zones were elsewhere then, and no use of a freed array would show.
    """
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    table = pointer(np._core._multiarray_umath._ARRAY_API, None)
    functions = ctypes.cast(table, ctypes.POINTER(ctypes.c_void_p))
    get_handler = ctypes.PYFUNCTYPE(ctypes.py_object)(functions[_GET_HANDLER])
    handler = _Handler.from_address(pointer(get_handler(), b"mem_handler"))
    assert handler.name == b"default_allocator", handler.name
    text = (Path(__file__).parent / "plain_malloc.cpp").read_text()
    plain = compiler().load("plain_malloc.cpp", text, [])
    for name in ("malloc", "calloc", "realloc", "free"):
        address = ctypes.cast(getattr(plain, f"plain_{name}"), ctypes.c_void_p).value
        setattr(handler, name, address)


if __name__ == "__main__":
    # The sanitizer is loaded by now. The compilers that Python starts do without: they would run
    # several times slower.
    del os.environ["LD_PRELOAD"]
    take_numpys_cache_away()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
