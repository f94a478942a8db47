"""The threads that PyTorch computes with on a CPU."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import torch


def openmp() -> tuple[Any, Any] | None:
    """Return what `share_openmp` takes of the OpenMP that PyTorch uses, or None without one.

    The libraries that PyTorch is linked with are searched with its own: whichever OpenMP that is,
    PyTorch's wheel's or the system's, its threads are those that PyTorch has started.
    """
    for name in ("libtorch_cpu.so", "libtorch_cpu.dylib"):
        try:
            library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / name))
            # at::get_num_threads: OpenMP itself has another number in each new thread.
            return library.GOMP_parallel, library._ZN2at15get_num_threadsEv
        except (OSError, AttributeError):
            continue
    return None
