"""Which target an array or a device name stands for, and compiling ahead for it."""

from __future__ import annotations

import sys
from functools import lru_cache
from typing import Any

import numpy as np

from . import cuda
from .cpu import CpuTarget
from .errors import KernelError
from .source import Source
from .target import Array, Target

_KDL_CPU = 1  # DLDeviceType of DLPack


@lru_cache(maxsize=None)
def cpu_target() -> Target:
    """Return the `cpu` target."""
    return CpuTarget()


@lru_cache(maxsize=None)
def cuda_target(device: int = 0) -> Target:
    """Return the `cuda` target of one GPU."""
    return cuda.CudaTarget(device)


def choose_target(device: str = "auto") -> tuple[Target, str | None]:
    """Return the target for a device name and, where "auto" settled for `cpu`, why.

    Parameters
    ----------
    device : {"auto", "cpu", "cuda"}
        What the user asked for.

    Raises
    ------
    ValueError
        If the name is none of these.
    KernelError
        If "cuda" was asked for and there is no working GPU.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device: got {device!r}, expected 'auto', 'cpu' or 'cuda'")
    if device == "cpu":
        return cpu_target(), None
    reason = cuda.unavailable()
    if reason is None:
        return cuda_target(), None
    if device == "cuda":
        raise KernelError(f"device 'cuda' is not available: {reason}")
    return cpu_target(), reason


def as_array(name: str, value: Any) -> tuple[Target, Array]:
    """Return a value as an array of its own device, without a copy, and that device's target.

    Raises
    ------
    TypeError
        If the value is neither an array nor speaks DLPack.
    """
    if isinstance(value, np.ndarray):
        return cpu_target(), value
    cupy = sys.modules.get("cupy")
    if cupy is not None and isinstance(value, cupy.ndarray):
        return cuda_target(value.device.id), value
    if not hasattr(value, "__dlpack_device__"):
        raise TypeError(
            f"{name}: got {type(value).__name__}, "
            "expected a NumPy or CuPy array or one that speaks DLPack"
        )
    if value.__dlpack_device__()[0] == _KDL_CPU:
        return cpu_target(), np.from_dlpack(value)
    reason = cuda.unavailable()
    if reason is not None:
        raise KernelError(f"{name}: is on a GPU, but {reason}")
    import cupy

    array = cupy.from_dlpack(value)
    return cuda_target(array.device.id), array


def prepare(target: Target, dtype: Any) -> None:
    """Compile every source of the package in its common specialisation, where not cached."""
    target.prepare([(source, source.constants(target, dtype)) for source in Source.all])
