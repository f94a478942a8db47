"""What timings depend on: the machine, and the versions of all libraries that took part."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path

from kernels.runtime import choose_target

LIBRARIES = ["numpy", "torch", "onnxruntime", "cupy-cuda12x", "cupy-cuda13x"]


def threads() -> int:
    """Return how many threads every contender has."""
    return int(os.environ.get("KERNELS_THREADS") or len(os.sched_getaffinity(0)))


def machine() -> dict[str, str]:
    info = subprocess.run(
        [sys.executable, "-m", "cnn", "info"], check=True, capture_output=True, text=True
    ).stdout
    told = dict(
        line.split(maxsplit=1) for line in info.splitlines() if not line.startswith("cache")
    )
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    device = choose_target()[0].name
    return {"device": device, "cpu": processor(), "system": platform.system(), **told, **versions}


def processor() -> str:
    """Return the processor's name."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()
