"""The precision in which products of float32 arrays are multiplied."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from ..runtime import Target
from ..runtime.checks import dtype_name

_NARROW = {"float16": "fp16", "bfloat16": "bf16"}
_precision: ContextVar[str] = ContextVar("precision", default="fp32")


@contextmanager
def precision(name: str) -> Iterator[None]:
    """Round the operands of float32 products within a ``with`` block, in this thread.

    Parameters
    ----------
    name : {"fp32", "tf32", "bf16", "fp16"}
        "fp32" does not round. The others do, to nearest, and multiply on tensor cores: tf32 keeps
        10 bits after the point, bf16 7, both with the exponents of float32; fp16 keeps 10 and has
        no number above 65504. Sums and results are float32, and so are sums alone, as the
        gradients of biases.

    Raises
    ------
    ValueError
        From functions that multiply, if arrays or target do not support this precision.
    """
    token = _precision.set(name)
    try:
        yield
    finally:
        _precision.reset(token)


def in_force() -> str:
    """Return the name that `precision` was given."""
    return _precision.get()


def rounds() -> bool:
    """Return whether `precision` is rounding operands."""
    return in_force() != "fp32"


def check_precision(name: str, target: Target, dtype: Any) -> None:
    """Raise ValueError unless arrays of a dtype can be multiplied in a precision on a target."""
    if name == "fp32":
        return
    known = target.precisions if dtype_name(dtype) == "float32" else ("fp32",)
    if name not in known:
        expected = " or ".join(map(repr, known))
        raise ValueError(
            f"precision: got {name!r} for {dtype} arrays on {target}, expected {expected}"
        )


def multiplied(target: Target, dtype: Any) -> str:
    """Return the precision of products of arrays: arrays of 16 bits have their own."""
    if rounds():
        return in_force()
    own = _NARROW.get(dtype_name(dtype), "fp32")
    return own if own in target.precisions else "fp32"
