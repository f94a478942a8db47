"""What kernels can run on here, for people and bug reports."""

from __future__ import annotations

import platform

import numpy as np

from . import cache, cpu, cuda
from .compiler import compiler
from .errors import KernelError


def describe() -> dict[str, str]:
    """Return targets, compiler, GPU, cache folder and versions, by name."""
    reason = cuda.unavailable()
    try:
        found = compiler()
        native = f"{' '.join(found.command)} ({found.version})"
    except KernelError as error:
        native = f"not available: {error}"
    return {
        "targets": "cpu" if reason else "cpu, cuda",
        "compiler": native,
        "threads": str(cpu.thread_count()),
        "GPU": reason or cuda.describe(),
        "cache folder": str(cache.folder()),
        "Python": platform.python_version(),
        "NumPy": np.__version__,
    }
