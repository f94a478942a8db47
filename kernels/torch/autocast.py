"""What `torch.autocast` does to the arguments of these functions.

On a GPU it is what PyTorch does to those of its own functions: products take autocast's type, the
loss float32. On a CPU the kernels have no 16-bit types, and every function takes float32.
"""

from __future__ import annotations

from typing import Any

import torch


def for_product(input: Any, *others: Any) -> list[Any]:
    """Cast the arguments of a convolution or matrix product if autocast is on."""
    dtype = torch.get_autocast_dtype("cuda") if _device(input) == "cuda" else torch.float32
    return _cast(dtype, input, *others)


def to_float32(input: Any, *others: Any) -> list[Any]:
    """Cast arguments to float32 if autocast is on."""
    return _cast(torch.float32, input, *others)


def for_kernel(input: Any) -> Any:
    """Cast an input to float32 if autocast is on and its device has no 16-bit kernels."""
    return to_float32(input)[0] if _device(input) == "cpu" else input


def _device(input: Any) -> str | None:
    """Return the type of an input's device if autocast is on there, None otherwise."""
    if not isinstance(input, torch.Tensor):
        return None
    kind = input.device.type
    return kind if kind in ("cpu", "cuda") and torch.is_autocast_enabled(kind) else None


def _cast(dtype: Any, input: Any, *others: Any) -> list[Any]:
    """Cast floating-point tensors other than float64 if autocast is on for the input's device."""
    values = [input, *others]
    if _device(input) is None:
        return values
    return [value.to(dtype) if _is_cast(value) else value for value in values]


def _is_cast(value: Any) -> bool:
    # PyTorch leaves float64 as it is, too.
    return isinstance(value, torch.Tensor) and (
        value.is_floating_point() and value.dtype != torch.float64
    )
