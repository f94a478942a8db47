"""How many bytes of loads a kernel has in flight, by its machine code.

    python -m tests.gpu.in_flight

A thread waits at the first instruction that uses what it loads: until then its loads wait for
memory together. To keep DRAM busy, a multiprocessor needs bandwidth times latency of them. The
kernels are those of the benchmark's rows that are no products; they are bound on the emulated
H100 and A100, and none is run. Results go to bench/results/loads-in-flight.json, for
`python -m tests.gpu.goals`.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple
from unittest.mock import patch

from kernels.runtime import choose_target
from kernels.runtime.cuda import CudaTarget
from kernels.runtime.program import Program
from kernels.runtime.types import Binder, Grid, Launch
from tests.lib import nvrtc, sass

from . import device
from .profile import REPOSITORY, RESULTS, rows_for

ARCH = {"h100": "sm_90", "a100": "sm_80"}
FILE = "loads-in-flight.json"

_LOAD = re.compile(r"\bLDG\.(?P<how>\S+)\s+R(?P<to>\d+),")
_REGISTER = re.compile(r"\bR(\d+)\b")
_WIDTHS = {"U8": 1, "S8": 1, "U16": 2, "S16": 2, "64": 8, "128": 16}
_NEVER_GOES_ON = re.compile(r"\s*/\*\w+\*/\s+(BRA\s+`|EXIT|RET)")  # without a condition

#: The registers that loads go to, and their bytes, in the order of the loads.
Waiting = list[tuple[range, int]]


class InFlight(NamedTuple):
    """The most loads of a thread that wait for memory at once."""

    loads: int
    bytes: int


class Bound(NamedTuple):
    """A launch that was bound, and the text that it is compiled from."""

    kernel: str
    source: str
    text: str


def of_kernel(code: str) -> InFlight:
    """Return what a kernel has in flight where it has most: in a loop, if loops load anything."""
    lines = code.splitlines()
    loops = [_most(lines, begin, end) for begin, end in sass.loops(lines)]
    found = [loop for loop in loops if loop.loads] or [_most(lines, 0, len(lines))]
    return max(found, key=lambda one: one.bytes)


def _most(lines: list[str], begin: int, end: int) -> InFlight:
    """Return the most in flight on any way through some lines.

    Where ways meet, the one with more in flight is followed.
    """
    labels = sass.labels(lines)
    found = InFlight(0, 0)
    arrived: dict[int, int] = {}  # the most bytes in flight at each place where a way went on
    ways: list[tuple[int, Waiting]] = [(begin, [])]
    while ways:
        start, waiting = ways.pop()
        for place in range(start, end):
            line = lines[place]
            if line.startswith("."):  # a label
                if _bytes(waiting) <= arrived.get(place, -1):
                    break
                arrived[place] = _bytes(waiting)
            waiting = _after(line, waiting)
            if _bytes(waiting) > found.bytes:
                found = InFlight(len(waiting), _bytes(waiting))
            if branch := sass.BRANCH.search(line):
                ways.append((labels[branch[1]], waiting))
            if _NEVER_GOES_ON.match(line):
                break
    return found


def _after(line: str, waiting: Waiting) -> Waiting:
    """Return the loads that still wait after an instruction, which may be one itself."""
    used = set(map(int, _REGISTER.findall(line)))
    # Loads share scoreboards: those before the one that an instruction waits for are taken to
    # have come, too.
    needed = [i for i, (registers, _) in enumerate(waiting) if not used.isdisjoint(registers)]
    left = waiting[needed[-1] + 1 :] if needed else waiting
    load = _LOAD.search(line)
    if load is None:
        return left
    width = next((_WIDTHS[word] for word in load["how"].split(".") if word in _WIDTHS), 4)
    first = int(load["to"])
    return [*left, (range(first, first + max(1, width // 4)), width)]


def _bytes(waiting: Waiting) -> int:
    return sum(width for _, width in waiting)


def launches() -> Iterator[tuple[str, list[Bound]]]:
    """Yield the rows that are no products, and what they bind; nothing runs."""
    from bench.kernels import contenders

    contenders.torch = None  # no peers
    bound: list[Bound] = []

    def binder(self: CudaTarget, program: Program, entry: str, constants: Any) -> Binder:
        text = program.specialised(constants, entry)

        def bind(grid: Grid, threads: int, shared: int, arguments: list[Any]) -> Launch:
            bound.append(Bound(entry, program.name, text))
            return lambda: None

        return bind

    target, _ = choose_target("cuda")
    with patch.object(CudaTarget, "binder", binder):
        for row in rows_for(target):
            if re.match("conv2d|dense|im2col", row.name):
                continue
            work = row.prepare(target, **row.sizes)
            if not work.operations:
                bound.clear()
                work.contenders[contenders.OURS].run()
                yield row.name, list(bound)


@cache
def _code(source: str, text: str, arch: str) -> dict[str, str]:
    return sass.text(nvrtc.compiled(text, source, arch).cubin)


def measure(model: str) -> None:
    """Write the rows of one GPU to standard output, a line each."""
    device.turn_on()
    for row, bound in launches():
        for launch in bound:
            found = of_kernel(_code(launch.source, launch.text, ARCH[model])[launch.kernel])
            line = {"gpu": model, "row": row, "kernel": launch.kernel, **found._asdict()}
            print(json.dumps(line), flush=True)


def main() -> None:
    """Measure both GPUs, each in a process of its own, and write the results."""
    lines: list[str] = []
    for model in ARCH:
        command = [sys.executable, "-m", "tests.gpu.in_flight", model]
        environment = {**os.environ, "EMULATED_GPU": model}
        done = subprocess.run(
            command, check=True, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, text=True
        )
        lines += done.stdout.splitlines()
    print("\n".join(lines))
    body = ",\n".join(lines)
    (RESULTS / FILE).write_text(
        f'{{"made by": "python -m tests.gpu.in_flight", "NVRTC": "{nvrtc.version()}",\n'
        f'"launches": [\n{body}\n]}}\n'
    )
    print(f"wrote {RESULTS / FILE}")


if __name__ == "__main__":
    measure(sys.argv[1]) if sys.argv[1:] else main()
