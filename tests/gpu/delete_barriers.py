"""Delete each __syncthreads() of the kernels in turn, and see whether the emulated GPU reports it.

    python -m tests.gpu.delete_barriers

A barrier is deleted from NVRTC's PTX, wherever its line was inlined; then the calls of paths.py
that launch it run. Prints a table, and ends with status 1 if no fault is reported for a barrier: it
is then either not needed, or no call has a shape that needs it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kernels.runtime import cuda_target
from tests.gpu import device, loaded
from tests.lib.support import CPU_ONLY

KERNELS = Path(__file__).resolve().parents[2] / "kernels"

_BARRIER = re.compile(r"__syncthreads\(\);")
_DEFINITION = re.compile(r"(#define|void) __syncthreads\(\)")
# What a barrier returns is used: that one cannot be deleted.
_VOTE = re.compile(r"__syncthreads_(?:or|and|count)\(")
_IN_PTX = re.compile(r"\s*(?:@!?%p\d+\s+)?(?:bar|barrier)\.(?!warp|red|cta\.red)")

Calls = Mapping[str, Callable[[Any], Any]]


@dataclass(frozen=True, order=True)
class Barrier:
    """A line with a __syncthreads(): its file as reports name it, and its number from 1."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True)
class Verdict:
    """Which call reported a fault without a barrier, and what; `call` is None where none did."""

    barrier: Barrier
    call: str | None
    report: str = ""


def barriers(kernels: Path) -> set[Barrier]:
    """Return every barrier in a folder of kernels."""
    found = set()
    for path in [*kernels.rglob("*.cu"), *kernels.rglob("*.cuh")]:
        if str(path.relative_to(kernels)) in CPU_ONLY:  # one thread needs no barrier
            continue
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            code = line.partition("//")[0]
            if "__syncthreads" not in code or _DEFINITION.search(code) or _VOTE.search(code):
                continue
            assert len(_BARRIER.findall(code)) == code.count("__syncthreads") == 1, (
                f"{path}:{number}: {line}"
            )
            found.add(Barrier(f"kernels/{path.relative_to(kernels)}", number))
    return found


def split(ptx: str) -> list[tuple[str, Barrier | None]]:
    """Return the lines of a text, and for each its barrier or None."""
    return [
        (line, Barrier(*place[0][:2]) if place and _IN_PTX.match(line) else None)
        for line, place in loaded.placed(ptx)
    ]


def users(calls: Calls) -> dict[Barrier, list[str]]:
    """Return which calls launch a module with each barrier; none of them may fail."""
    found: dict[Barrier, list[str]] = {}
    for name, call in calls.items():
        seen: set[Barrier] = set()

        def note(ptx: str, seen: set[Barrier] = seen) -> None:
            seen.update(barrier for _, barrier in split(ptx) if barrier)

        report = run(call, note)
        assert report is None, f"with every barrier there, {name} fails: {report}"
        for barrier in seen:
            found.setdefault(barrier, []).append(name)
    return found


def run(call: Callable[[Any], Any], edit: Callable[[str], str | None]) -> str | None:
    """Run a call whose modules are edited; return the report of its fault, None without one."""
    import cupy

    errors = cupy.cuda.runtime.CUDARuntimeError, cupy.cuda.driver.CUDADriverError
    with loaded.editing(edit):
        try:
            call(cuda_target())
            cupy.cuda.Device().synchronize()
        except errors:
            report = device.fault()
            assert report is not None
            return report
        finally:
            device.fresh()
    return None


def verdict(barrier: Barrier, names: list[str], calls: Calls) -> Verdict:
    """Delete a barrier and run the calls that have it until one reports a fault."""

    def without(ptx: str) -> str:
        return "\n".join(line for line, found in split(ptx) if found != barrier)

    for name in names:
        report = run(calls[name], without)
        if report is not None:
            return Verdict(barrier, name, report)
    return Verdict(barrier, None)


def try_all(calls: Calls, kernels: Path = KERNELS) -> list[Verdict]:
    """Try every barrier in the text of the kernels; one that no call has survives."""
    having = users(calls)
    found = sorted(barriers(kernels))
    assert {barrier for barrier in having if barrier.file.startswith("kernels/")} <= set(found)
    return [verdict(barrier, having.get(barrier, []), calls) for barrier in found]


def main() -> int:
    """Print the table and return the exit status."""
    device.turn_on()
    from tests.lib.paths import CALLS

    verdicts = try_all(CALLS)
    for each in verdicts:
        caught = f"caught by {each.call}: {each.report}" if each.call else "SURVIVED"
        print(f"{each.barrier}  {caught}")
    survivors = sum(each.call is None for each in verdicts)
    print(f"{len(verdicts)} barriers, {survivors} survived")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
