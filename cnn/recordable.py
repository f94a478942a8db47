"""Parts of a training (layers, loss, optimizer): which may be recorded, and what they hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from kernels.lowlevel import Array


def recordable(part: Any) -> bool:
    """Whether an object's own class sets ``recordable = True``: it only launches kernels.

    A derived class does not inherit it, since it may have other methods.
    """
    return bool(type(part).__dict__.get("recordable", False))


def own(part: Any) -> bool:
    """Whether an object's class is one of this package, whose methods do nothing unforeseen."""
    return type(part).__module__.startswith(f"{__package__}.")


def arrays_of(parts: Sequence[Any], kind: type[Any]) -> list[Array]:
    """Return the arrays of class `kind` among the attributes of objects, and in dicts there.

    Arrays of Python objects are left out: no kernel takes them.
    """
    values = [value for part in parts for value in vars(part).values()]
    values += [entry for value in values if isinstance(value, dict) for entry in value.values()]
    return [value for value in values if isinstance(value, kind) and not value.dtype.hasobject]


def restore(part: Any, attributes: dict[str, Any]) -> None:
    """Set an object's attributes to those given, and delete all others, at once as to Ctrl-C."""
    object.__setattr__(part, "__dict__", dict(attributes))


@contextmanager
def unchanged(parts: Sequence[Any]) -> Iterator[None]:
    """Restore the attributes of objects at the end of a ``with`` block."""
    before = [(part, dict(vars(part))) for part in parts]
    try:
        yield
    finally:
        for part, attributes in before:
            restore(part, attributes)
