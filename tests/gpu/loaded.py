"""The PTX of kernels, shown or edited as CuPy loads it, between compiler and driver.

The PTX comes from CuPy's cache if it is there, so an edit compiles nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

from kernels.runtime import targets
from kernels.runtime.source import Source

#: The origin of an instruction: (file, line, column), then where that was inlined, and so on.
Place = tuple[tuple[str, int, int], ...]

_FILE = re.compile(r'^\s*\.file\s+(\d+)\s+"(?:[^"]*/(?=kernels/))?([^"]+)"', re.MULTILINE)
_LOC = re.compile(
    r"\s*\.loc\s+(\d+) (\d+) (\d+)(?:, function_name [^,]+, inlined_at (\d+) (\d+) (\d+))?"
)


@contextmanager
def editing(edit: Callable[[str], str | None]) -> Iterator[list[Any]]:
    """Edit the PTX of every module that CuPy loads, if `edit` returns a text; yield those modules.

    Modules are loaded again for this: by a temporary `cuda` target, and by CuPy.
    """
    import cupy

    modules: list[Any] = []

    class Module(cupy.cuda.function.Module):
        def load(self, code: bytes) -> None:
            edited = edit(code.rstrip(b"\0").decode())
            super().load(code if edited is None else edited.encode())
            if edited is not None:
                modules.append(self)

    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(cupy.cuda.function, "Module", Module))
        stack.enter_context(mock.patch.object(targets, "_CUDA", {}))
        for source in Source.all:
            stack.enter_context(mock.patch.object(source, "_kernels", {}))
        cupy.clear_memo()
        stack.callback(cupy.clear_memo)
        yield modules


def placed(ptx: str) -> Iterator[tuple[str, Place]]:
    """Yield each line of a text with its origin, () if that is unknown."""
    files = dict(_FILE.findall(ptx))
    known: dict[tuple[str, ...], Place] = {}
    place: Place = ()
    for line in ptx.splitlines():
        loc = _LOC.match(line)
        if loc and loc[2] != "0":  # of no line: the last one is nearest
            at, outer = loc.groups()[:3], loc.groups()[3:]
            place = ((files[at[0]], int(at[1]), int(at[2])), *known.get(outer, ()))
            known[at] = place
        yield line, place
