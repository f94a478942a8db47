"""The threads that PyTorch computes with on a CPU."""

from __future__ import annotations

import ctypes
from pathlib import Path

import torch


def parallel() -> int | None:
    """Return the address of ``GOMP_parallel`` in the OpenMP that PyTorch uses, or None without one.

    The libraries that PyTorch is linked with are searched with its own: whichever OpenMP that is,
    PyTorch's wheel's or the system's, its threads are those that PyTorch has started.
    """
    for name in ("libtorch_cpu.so", "libtorch_cpu.dylib"):
        try:
            library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / name))
            return ctypes.cast(library.GOMP_parallel, ctypes.c_void_p).value
        except (OSError, AttributeError):
            continue
    return None
