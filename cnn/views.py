"""Dicts of the arrays that lie in a model's buffers."""

from __future__ import annotations

from typing import Any

from kernels.lowlevel import Array


class Views(dict[str, Array]):
    """Views of a buffer by name. Another array in place of one would be no part of the buffer.

    Copies are plain dicts.
    """

    def __setitem__(self, name: str, array: Array) -> None:
        # It is the same one after an operation in place, such as *=.
        if name not in self or array is not self[name]:
            raise TypeError(f"{name}: got another array, expected values set in place: [...] =")

    def update(self, *others: Any, **more: Any) -> None:
        """Take arrays that are the same ones already, as after an operation in place."""
        for name, array in dict(*others, **more).items():
            self[name] = array

    def __ior__(self, others: Any) -> Any:  # type: ignore[misc]
        self.update(others)
        return self

    def _stays(self, *arguments: Any) -> Any:
        raise TypeError("arrays of a model: none can be added or removed, see `Network`")

    __delitem__ = pop = popitem = clear = setdefault = _stays

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)
