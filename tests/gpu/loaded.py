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
    r"\s*\.loc\s+(\d+) (\d+) (\d+)(?:, function_name ([^,]+), inlined_at (\d+) (\d+) (\d+))?"
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
    """Yield each line of a text with its origin, () if that is unknown.

    A text says where a function was inlined by file, line and column, which several instances of a
    template have in common. Which one it is stands directly before, unless it was said earlier.
    """
    files = dict(_FILE.findall(ptx))
    known: dict[tuple[str, ...], Place] = {}
    callers: dict[tuple[str, ...], Place] = {}  # by function and where it was inlined
    just_said: set[tuple[str, ...]] = set()
    place: Place = ()
    for line in ptx.splitlines():
        loc = _LOC.match(line)
        if loc and loc[2] != "0":  # of no line: the last one is nearest
            at, function, outer = loc.groups()[:3], loc[4], loc.groups()[4:]
            inlined = (function, *outer)
            if outer in just_said or inlined not in callers:
                callers[inlined] = known.get(outer, ())
            place = ((files[at[0]], int(at[1]), int(at[2])), *callers[inlined])
            known[at] = place
            just_said.add(at)
        elif not loc:
            just_said.clear()
        yield line, place
