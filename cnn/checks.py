"""Checks of settings when they are given, with the messages of `kernels.runtime.checks`.

NumPy's numbers become Python's, so that files, messages and comparisons see one kind.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from functools import partial
from typing import Any

import numpy as np

from kernels import lowlevel

#: Takes the name and value of a setting; returns the value to keep, or raises.
Rule = Callable[[str, Any], Any]


def plain(value: Any) -> Any:
    """Return a value with Python's numbers in place of NumPy's, within lists and tuples too."""
    if isinstance(value, np.floating):  # item() leaves a longdouble as it is
        return float(value)
    if isinstance(value, np.generic):
        return value.item()
    if type(value) in (list, tuple):
        return type(value)(map(plain, value))
    return value


def settle(owner: Any, **rules: Rule) -> None:
    """Check a dataclass's settings and store them as Python's types; for its `__post_init__`.

    Parameters
    ----------
    owner : dataclass
        Frozen or not.
    **rules : Rule
        By the names of the fields.

    Raises
    ------
    TypeError, ValueError
        From a rule.
    """
    for field in fields(owner):
        if field.init:
            value = plain(getattr(owner, field.name))
            if field.name in rules:
                value = rules[field.name](field.name, value)
            object.__setattr__(owner, field.name, value)


def number(least: float = -math.inf, *, below: float = math.inf, most: float = math.inf) -> Rule:
    """Return the rule for a finite number of at least `least`, below `below`, at most `most`."""

    def check(name: str, value: Any) -> Any:
        lowlevel.number(name, value, least, below, most)
        return plain(value)  # a whole number stays one

    return check


def optional(rule: Rule) -> Rule:
    """Return a rule that takes None, and what another rule takes."""
    return lambda name, value: None if value is None else rule(name, value)


#: A whole number of at least 1.
count: Rule = partial(lowlevel.whole, least=1)
#: A whole number that seeds a generator, in [0, 2**64).
word: Rule = lowlevel.word
#: A number in [0, 1].
fraction = number(0, most=1)


def flag(name: str, value: Any) -> bool:
    """Return True or False, which may be given as 1 or 0; or raise TypeError."""
    value = plain(value)
    if not isinstance(value, int) or value not in (0, 1):
        raise TypeError(f"{name}: got {shown(value)}, expected True or False")
    return bool(value)


def multiple(name: str, value: int, of: int, what: str) -> None:
    """Raise ValueError unless a whole number can be divided by another, which is that of `what`."""
    if value % of:
        raise ValueError(f"{name}: got {value}, expected a multiple of {of}, the number of {what}")


def pair(name: str, value: Any) -> Any:
    """Return a whole number of at least 1, or (h, w) of them."""
    both = lowlevel.pair(name, value, 1)
    return both if isinstance(value, Sequence) else both[0]


def padding(name: str, value: Any) -> Any:
    """Return what `kernels.conv2d` takes for a padding, with tuples in place of lists."""
    lowlevel.sides(value)
    return tuples(name, value)


def tuples(name: str, value: Any) -> Any:
    """Return a value with tuples in place of lists, which JSON and TOML have for them."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        return value
    return tuple(tuples(name, part) for part in value)


def instance(name: str, value: Any, kind: type[Any]) -> Any:
    """Return a value if it is an instance of `kind`, or raise TypeError."""
    if not isinstance(value, kind):
        raise TypeError(f"{name}: got {shown(value)}, expected an object of class {kind.__name__}")
    return value


def function(name: str, value: Any) -> Any:
    """Return a value that can be called, or raise TypeError, also for a class in place of one."""
    if isinstance(value, type) or not callable(value):
        raise TypeError(f"{name}: got {shown(value)}, expected an object that can be called")
    return value


def sequence(name: str, value: Any, of: str) -> list[Any]:
    """Return the elements of a sequence or other iterable as a list, or raise TypeError."""
    scalar = getattr(value, "ndim", 1) == 0  # a 0-d array has __iter__, but cannot be iterated
    if scalar or isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise TypeError(f"{name}: got {shown(value)}, expected a sequence {of}")
    return list(value)


def shown(value: Any) -> str:
    """Return a value as messages show it: numbers and strings, of anything else the class."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    known = isinstance(value, (str, int, float, type(None)))
    return repr(value) if known else type(value).__name__
