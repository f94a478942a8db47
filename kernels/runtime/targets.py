"""The target of an array or a device name."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from . import cuda
from .cpu import CpuTarget
from .errors import KernelError
from .target import Target
from .types import Array

_KDL_HOST = (1, 3)  # DLDeviceType of DLPack: kDLCPU and, pinned for a GPU, kDLCUDAHost
# One target per device: kernels and the thread pool belong to it.
_CPU = CpuTarget()
_CUDA: dict[int, Target] = {}  # by device


def cpu_target() -> CpuTarget:
    """Return the `cpu` target."""
    return _CPU


def cuda_target(device: int = 0) -> Target:
    """Return the `cuda` target of one GPU."""
    if device not in _CUDA:
        _CUDA.setdefault(device, cuda.CudaTarget(device))  # of two threads, the first one's stays
    return _CUDA[device]


def choose_target(device: str = "auto") -> tuple[Target, str | None]:
    """Return the target for a device name and, if "auto" falls back to `cpu`, the reason.

    Parameters
    ----------
    device : {"auto", "cpu", "cuda"}
        The user's choice; "cuda" is CuPy's current GPU.

    Raises
    ------
    ValueError
        If the name is none of these.
    KernelError
        If "cuda" is chosen and there is no working GPU.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device: got {device!r}, expected 'auto', 'cpu' or 'cuda'")
    if device == "cpu":
        return _CPU, None
    reason = cuda.unavailable()
    if reason is None:
        return cuda_target(cuda.current_device()), None
    if device == "cuda":
        raise KernelError(f"device 'cuda' is not available: {reason}")
    return _CPU, reason


def as_array(name: str, value: Any) -> tuple[Target, Array]:
    """Return the target of a value's device, and the value as an array, without a copy.

    Raises
    ------
    TypeError
        If the value is no array and does not support DLPack, or NumPy or CuPy cannot take it so, or
        it is a masked array.
    """
    if type(value) is np.ndarray:
        return _CPU, value
    check_unmasked(name, value)
    if isinstance(value, np.ndarray):
        return _CPU, value
    loaded: Any = sys.modules.get("cupy")
    if loaded is not None and isinstance(value, loaded.ndarray):
        return cuda_target(value.device.id), value
    if not hasattr(value, "__dlpack_device__"):
        raise TypeError(
            f"{name}: got {type(value).__name__}, "
            "expected a NumPy or CuPy array or one that supports DLPack"
        )
    torch: Any = sys.modules.get("torch")
    is_tensor = torch is not None and isinstance(value, torch.Tensor)
    if is_tensor:
        # PyTorch would export memory of a fake tensor, which has no values, and of a negated view,
        # without the sign.
        if type(value).__torch_dispatch__ is not torch.Tensor.__torch_dispatch__:
            raise TypeError(f"{name}: got {type(value).__name__}, expected a tensor of values")
        if value.is_neg():
            raise TypeError(f"{name}: got a negated view, expected a tensor after resolve_neg()")
    try:
        if value.__dlpack_device__()[0] in _KDL_HOST:
            array = np.from_dlpack(value)
            if is_tensor:
                _check_memory(value)
            return _CPU, array
    # Such as a dtype that NumPy lacks, PyTorch's device without memory, or Arrow's missing values.
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        raise TypeError(f"{name}: NumPy cannot take it through DLPack: {error}") from error
    reason = cuda.unavailable()
    if reason is not None:
        raise KernelError(f"{name}: is on a GPU, but {reason}")
    try:
        array = cuda.borrowed(value)
    # Such as a tensor that requires a gradient, or a dtype that CuPy lacks.
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        raise TypeError(f"{name}: CuPy cannot take it through DLPack: {error}") from error
    return cuda_target(array.device.id), array


def _check_memory(tensor: Any) -> None:
    """Raise RuntimeError if a tensor has elements, but no memory for them.

    PyTorch exports it with a null address, in place of which NumPy takes uninitialised memory.
    """
    if tensor.numel() and not tensor.untyped_storage().data_ptr():
        raise RuntimeError("it has no memory")


def check_unmasked(name: str, value: Any) -> None:
    """Raise TypeError if a value is a masked array: a kernel would read what the mask hides."""
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name}: got a masked array, expected one without a mask")
