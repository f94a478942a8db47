"""Sources: programs that create each of their kernels once."""

from __future__ import annotations

from typing import Any

from .kernel import Kernel
from .program import Program
from .target import Target


class Source(Program):
    """A program that creates one kernel per entry point, target, element type and constants.

    Parameters
    ----------
    name, text
        As `Program` takes them.
    packaged : bool
        Whether it belongs to the package and is listed in `Source.all`.
    **defaults
        Constants of every kernel, unless a call of `kernel` gives others.
    """

    #: Every source of the package, in order of definition.
    all: list[Source] = []

    def __init__(
        self, name: str, text: str | None = None, *, packaged: bool = True, **defaults: Any
    ) -> None:
        super().__init__(name, text)
        self.defaults = defaults
        self._kernels: dict[Any, Kernel] = {}
        if packaged:
            Source.all.append(self)

    def kernel(self, entry: str, target: Target, dtype: Any, **constants: Any) -> Kernel:
        """Return the kernel of an entry point; its first launch compiles it."""
        key = (entry, target, dtype, *constants, *constants.values())
        found = self._kernels.get(key)
        if found is None:
            found = Kernel(target, self, entry, self.constants(target, dtype) | constants)
            self._kernels[key] = found
        return found

    def constants(self, target: Target, dtype: Any) -> dict[str, Any]:
        """Return the constants that all kernels of a target and element type share."""
        return {**target.constants, **self.defaults, "T": dtype}
