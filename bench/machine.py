"""What timings depend on: the machine, and the versions of all libraries that took part."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
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


#: What a processor is, by its vendor, its family, and an instruction set that it has.
_KINDS = {
    ("AuthenticAMD", "25", "avx512f"): "Zen 4",
    ("AuthenticAMD", "26", "avx512f"): "Zen 5",
    ("GenuineIntel", "6", "amx_tile"): "Sapphire Rapids or later",
}


def processor() -> str:
    """Return the processor's name and, if it is known here, what it is.

    Virtual machines often tell no more than "AMD EPYC".
    """
    cpu = Path("/proc/cpuinfo")
    if not cpu.exists():
        return platform.processor()
    first = cpu.read_text().split("\n\n")[0]
    told = {key.strip(): value.strip() for key, value in re.findall("(.*?):(.*)", first)}
    name, flags = told.get("model name", platform.processor()), told.get("flags", "").split()
    for (vendor, family, flag), kind in _KINDS.items():
        if (told.get("vendor_id"), told.get("cpu family")) == (vendor, family) and flag in flags:
            return f"{name}, {kind}"
    return name
