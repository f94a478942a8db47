"""Checks of the tensors that `functional` is given."""

from __future__ import annotations

from typing import Any

import torch

from ..runtime.checks import one_of

_DTYPES = {
    "cpu": (torch.float32, torch.float64),
    "cuda": (torch.float32, torch.float64, torch.float16, torch.bfloat16),
}


def tensor(name: str, value: Any, input: Any) -> None:
    """Raise unless a value is a dense tensor on the device of the input."""
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"{name}: got {type(value).__name__}, expected a torch.Tensor")
    if value.layout != torch.strided or value.is_nested:
        kind = "a nested tensor" if value.is_nested else f"a tensor of {value.layout}"
        raise TypeError(f"{name}: got {kind}, expected a dense one")
    if value.device != input.device:
        raise ValueError(f"{name}: is on {value.device}, expected {input.device} like input")


def input(value: Any) -> None:
    """Raise unless the input is a tensor of a device and type that the kernels take."""
    tensor("input", value, value)
    if value.device.type not in _DTYPES:
        raise ValueError(f"input: is on {value.device}, expected cpu or cuda")
    dtypes = _DTYPES[value.device.type]
    if value.dtype not in dtypes:
        raise TypeError(f"input: got {value.dtype} on {value.device}, expected {one_of(dtypes)}")


def like(name: str, value: Any, input: Any) -> None:
    """Raise unless a value is a tensor of the input's device and type."""
    tensor(name, value, input)
    if value.dtype != input.dtype:
        raise TypeError(f"{name}: got {value.dtype}, expected {input.dtype} like input")


def shape(name: str, value: Any, expected: tuple[int | str, ...], meaning: str) -> None:
    """Raise unless a tensor has a shape, in which a letter stands for any length."""
    got = tuple(value.shape)
    pairs = zip(got, expected, strict=False)
    if len(got) != len(expected) or any(g != e for g, e in pairs if not isinstance(e, str)):
        lengths = ", ".join(map(str, expected)) + "," * (len(expected) == 1)
        raise ValueError(f"{name}: got shape {got}, expected ({lengths}): {meaning}")
