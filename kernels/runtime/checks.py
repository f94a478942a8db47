"""Checks of arguments: errors are one sentence with the argument, what it got, what it expected."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Collection, Sequence
from functools import cache
from typing import Any

import numpy as np

from .errors import KernelError
from .recording import current
from .target import Target
from .targets import as_array
from .types import INT32_MAX, Array, Shape

# Types that are no numbers here, though they derive from int and np.integer.
_NO_NUMBERS = (bool, np.timedelta64)
_MOST_SHOWN = 80  # characters of a value in a message


def arrays(*, optional: Collection[str] = (), **named: Any) -> tuple[Target, list[Array]]:
    """Return the target and the contiguous arrays of arguments that share device and dtype.

    Arguments are checked in order; the first decides the device and the floating dtype. Those named
    in `optional` may be None. Arrays that are not C-contiguous are copied.

    Raises
    ------
    TypeError
        If an argument is no array, or its dtype is not the first's, or the target lacks that dtype.
    ValueError
        If an argument is on another device than the first.
    """
    taken: list[Array] = []
    first = target = dtype = None
    for name, value in named.items():
        if value is None and name in optional:
            taken.append(None)
            continue
        here, array = as_array(name, value)
        if first is None:
            first, target, dtype = name, here, array.dtype
            if dtype_name(dtype) not in here.dtypes or not dtype.isnative:
                raise TypeError(f"{name}: got {dtype} on {here}, expected {one_of(here.dtypes)}")
        if here is not target:
            raise ValueError(f"{name}: is on {here}, expected {target} like {first}")
        if array.dtype != dtype:
            raise TypeError(f"{name}: got {array.dtype}, expected {dtype} like {first}")
        taken.append(contiguous(target, array))
    assert target is not None
    return target, taken


@cache
def dtype_name(dtype: Any) -> str:
    """Return a dtype's name; cached, since NumPy composes it at each access."""
    return str(dtype.name)


def one_of(choices: Sequence[Any]) -> str:
    """Return two or more choices as a message lists them, such as "a, b or c"."""
    return f"{', '.join(map(str, choices[:-1]))} or {choices[-1]}"


def shown(value: Any) -> str:
    """Return a value as messages show it: on one line, and only the beginning of a long one."""
    text = " ".join(repr(value).split())
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."


def floating(dtype: Any) -> bool:
    """Whether a dtype is floating; bfloat16 of ml_dtypes has the kind "V" in NumPy."""
    return dtype.kind == "f" or dtype_name(dtype) == "bfloat16"


def floating_type(name: str, value: Any, target: Target) -> np.dtype[Any]:
    """Return a floating dtype, given as NumPy takes it, that kernels take on the target.

    Raises
    ------
    TypeError
        If it is none, or its bytes are not in the machine's order.
    """
    dtype: np.dtype[Any] | None = None
    if value is not None:  # for which NumPy takes float64
        with contextlib.suppress(TypeError, ValueError, SyntaxError):
            dtype = np.dtype(value)
    if dtype is None or dtype_name(dtype) not in target.dtypes or not dtype.isnative:
        got = shown(value) if dtype is None else dtype
        expected = ", ".join(target.dtypes)
        raise TypeError(f"{name}: got {got} on {target}, expected one of {expected}")
    return dtype


def of_type(target: Target, name: str, value: Any, expected: str, kinds: str) -> Array:
    """Return an array on the target, C-contiguous, whose dtype's kind is in `kinds`.

    Raises
    ------
    TypeError
        If it is no array, or its dtype is of another kind; the message says `expected`.
    ValueError
        If it is on another device.
    """
    here, array = as_array(name, value)
    if here is not target:
        raise ValueError(f"{name}: is on {here}, expected {target}")
    if array.dtype.kind not in kinds:
        raise TypeError(f"{name}: got {array.dtype}, expected {expected}")
    return contiguous(target, array)


def images(name: str, value: Any) -> tuple[Target, Array]:
    """Return the target and the contiguous array of images, or raise TypeError.

    Images are uint8, or floating of a type that the target has.
    """
    target, array = as_array(name, value)
    known = ("uint8", *target.dtypes)
    if dtype_name(array.dtype) not in known or not array.dtype.isnative:
        raise TypeError(f"{name}: got {array.dtype} on {target}, expected {one_of(known)}")
    return target, contiguous(target, array)


def in_place(name: str, value: Any) -> None:
    """Raise ValueError unless an array can be updated in place."""
    array = as_array(name, value)[1]
    if not array.flags.c_contiguous:
        raise ValueError(f"{name}: is updated in place, expected a C-contiguous array")
    if not getattr(array.flags, "aligned", True):
        raise ValueError(f"{name}: is updated in place, expected an array aligned to its dtype")
    if not getattr(array.flags, "writeable", True):
        raise ValueError(f"{name}: is updated in place, expected a writeable array")


def result(
    target: Target, name: str, out: Any, expected: Shape, dtype: Any, others: dict[str, Any]
) -> Array:
    """Return the array that a result is written to: a new one or, if given, `out`.

    Raises
    ------
    TypeError, ValueError
        If dtype, device or shape of `out` do not fit, it cannot be updated in place, or it overlaps
        one of the `others`.
    """
    if out is None:
        return target.empty(expected, dtype)
    here, array = as_array(name, out)
    if here is not target:
        raise ValueError(f"{name}: is on {here}, expected {target}")
    if array.dtype != dtype:
        raise TypeError(f"{name}: got {array.dtype}, expected {dtype}")
    shape(name, array, expected, "the shape of what is written there")
    in_place(name, array)
    apart(target, {name: array}, others)
    return array


def apart(target: Target, written: dict[str, Any], read: dict[str, Any]) -> None:
    """Raise ValueError if a written array overlaps another one in memory; None is no array."""
    spans: list[tuple[str, int, int]] = []
    for name, array in (read | written).items():
        if array is None:
            continue
        begin = target.address(array)
        end = begin + array.nbytes
        if name in written:
            for other, first, last in spans:
                if begin < last and first < end:
                    raise ValueError(
                        f"{name}: overlaps {other} in memory, expected an array of its own"
                    )
        spans.append((name, begin, end))


def contiguous(target: Target, array: Array) -> Array:
    """Return the array, or a copy if it is not C-contiguous or not aligned.

    Raises
    ------
    KernelError
        If a copy is needed in a recording: replays would not make it again.
    """
    if array.flags.c_contiguous and getattr(array.flags, "aligned", True):
        return array
    if current() is not None:
        raise KernelError("an array that is not C-contiguous would be copied, and no replay would")
    return target.array(array)


def dimensions(name: str, array: Array, letters: str) -> None:
    """Raise ValueError unless the array has one dimension per letter of "N, H, W, C"."""
    expected = letters.count(",") + 1
    if array.ndim != expected:
        raise ValueError(
            f"{name}: got shape {array.shape}, expected {expected} dimensions ({letters})"
        )


def shape(name: str, array: Array, expected: Shape, meaning: str) -> None:
    """Raise ValueError unless the array has exactly this shape."""
    if tuple(array.shape) != tuple(expected):
        raise ValueError(
            f"{name}: got shape {tuple(array.shape)}, expected {tuple(expected)} ({meaning})"
        )


def whole(name: str, value: Any, least: int) -> int:
    """Return a whole number from `least` to 2**31 - 1, or raise TypeError or ValueError."""
    if type(value) is not int and (
        isinstance(value, _NO_NUMBERS) or not isinstance(value, (int, np.integer))
    ):
        raise TypeError(f"{name}: got {shown(value)}, expected a whole number")
    if not least <= value <= INT32_MAX:
        raise ValueError(f"{name}: got {value}, expected at least {least} and below 2**31")
    return int(value)


def number(
    name: str,
    value: Any,
    least: float = -np.inf,
    below: float = np.inf,
    most: float = np.inf,
) -> float:
    """Return a finite number of at least `least`, below `below` and at most `most`.

    Raises
    ------
    TypeError
        If it is no number.
    ValueError
        If it is out of range.
    """
    if isinstance(value, _NO_NUMBERS) or not isinstance(
        value, (int, float, np.integer, np.floating)
    ):
        raise TypeError(f"{name}: got {shown(value)}, expected a number")
    try:
        result = float(value)
    except OverflowError:  # a whole number larger than any float
        result = math.inf
    if not (math.isfinite(result) and least <= result < below and result <= most):
        bounds = [f"at least {least:g}"] if least > -np.inf else []
        bounds += [f"below {below:g}"] if below < np.inf else []
        bounds += [f"at most {most:g}"] if most < np.inf else []
        expected = " and ".join(bounds) or "a finite number"
        raise ValueError(f"{name}: got {value}, expected {expected}")
    return result


def count(name: str, elements: int) -> int:
    """Return a number that fits the kernels' 32-bit index, such as of rows, or raise ValueError."""
    if elements > INT32_MAX:
        raise ValueError(f"{name}: got {elements}, expected below 2**31")
    return elements


def word(name: str, value: Any) -> int:
    """Return a whole number from 0 to 2**64 - 1, or raise TypeError or ValueError."""
    if isinstance(value, _NO_NUMBERS) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name}: got {shown(value)}, expected a whole number")
    if not 0 <= value < 2**64:
        raise ValueError(f"{name}: got {value}, expected a whole number from 0 to 2**64 - 1")
    return int(value)
