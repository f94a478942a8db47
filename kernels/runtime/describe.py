"""A description of this machine's targets, for users and bug reports."""

from __future__ import annotations

import platform
from pathlib import Path

import numpy as np

from . import blocks, cache, cuda, jobs
from .compiler import compiler
from .errors import KernelError


def describe() -> dict[str, str]:
    """Return targets, compiler, processor, GPU, cache folder and versions, by name."""
    reason = cuda.unavailable()
    here = "not known without a compiler"
    try:
        found = compiler()
        native = f"{' '.join(found.command)} ({found.version})"
        here = blocks.machine(int(found.macro("REGISTER_BYTES")))
    except KernelError as error:
        native = f"not available: {error}"
    return {
        "targets": "cpu" if reason else "cpu, cuda",
        "compiler": native,
        "CPU": _processor(),
        "caches": here,
        "threads": str(jobs.thread_count()),
        "GPU": reason or cuda.describe(),
        "cache folder": str(cache.folder() or "none: there is no home folder"),
        "Python": platform.python_version(),
        "NumPy": np.__version__,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())
