"""Every launch on the GPU beside the same launch on the emulated machine, from the same memory.

    python -m tests.gpu_lane.bits

Before a launch its arrays are copied; the PTX that NVRTC makes of the same text is then executed on
the CPU, on those copies. What the two wrote must be the same bits where PTX defines them all, else
the same numbers within the tests' tolerance; see `undefined`. Nothing adds up: each launch starts
from the GPU's own memory.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any

import numpy as np

from kernels import lowlevel
from kernels.runtime import cuda_target
from kernels.runtime.arena import Arena
from kernels.runtime.recording import Recording, Rehearsal
from tests.gpu import build, ptx
from tests.gpu.machine_api import Machine
from tests.lib.calls import CALLS, PLANNED
from tests.lib.support import RTOL

from . import launches, steps
from .launches import Launch
from .report import Report, of_this_part
from .undefined import undefined

ALIGNMENT = 256  # of CUDA's arrays, in bytes
#: In order of worth: what recipes train in, what has own kernels, the others.
DTYPES = ("float32", "float64", "float16", "bfloat16")
PRODUCTS = {"conv2d", "conv2d_backward", "dense", "dense_backward"}  # on tensor cores, too
NARROW = ("float16", "bfloat16")
NEVER_NARROW = ("affine_warp",)  # its matrix of coordinates is float32 or float64
#: Of the whole numbers that a kernel with open instructions writes, as many may be others: a
#: maximum's place where two elements differ in the last bit.
MOST_OTHERS = 1e-3


def main() -> int:
    """Compare calls and planned steps until all are done or time is up."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=90)
    parser.add_argument("--only", default="", help="calls whose name has this in it")
    parser.add_argument("--batch", type=int, default=32, help="of the training steps")
    options = parser.parse_args()
    end = time.monotonic() + options.seconds
    report = of_this_part()
    comparison = Comparison(report)
    for name, run in programs(options.only, options.batch):
        if time.monotonic() > end:
            report.add("left_out", name)
            continue
        comparison.program = name
        try:
            with launches.each(comparison.launch):
                run()
        except Exception as error:  # after a fault of the GPU every other call would fail, too
            report.problem(f"{name}: {type(error).__name__}: {error}")
            break
    if not comparison.launches:
        report.problem("nothing was compared")
    return report.status


def programs(only: str, batch: int) -> Iterator[tuple[str, Any]]:
    """Yield what is run, by names, in order of worth."""
    target = cuda_target()
    calls = {name: call for name, call in (CALLS | PLANNED).items() if only in name}
    for dtype in DTYPES:
        if dtype in NARROW:
            calls = {name: call for name, call in calls.items() if name not in NEVER_NARROW}
        compile_at_once(target, calls, dtype)
        for name, call in calls.items():
            yield f"{name} {dtype}", partial(run_call, target, call, dtype)
        if dtype == "float32":
            for name in sorted(PRODUCTS & calls.keys()):
                for precision in target.precisions[1:]:
                    run = partial(run_call, target, calls[name], dtype, precision)
                    yield f"{name} float32 in {precision}", run
            for network in steps.NETWORKS:
                name = f"training step: {network}, batch {batch}"
                if only in name:
                    yield name, partial(steps.record, network, batch)


def run_call(target: Any, call: Any, dtype: str, precision: str = "fp32") -> None:
    """Run a call as a recording does: CuPy's own launches cannot be seen, and are none in it."""
    arguments = call.arguments(target, np.dtype(dtype))
    recording = Recording(Arena(target), list(arguments.values()))
    with lowlevel.precision(precision), recording:
        call.function(**{**call.options, **arguments})


def compile_at_once(target: Any, calls: dict[str, Any], dtype: str) -> None:
    """Compile what calls launch, on every core."""
    rehearsal = Rehearsal(Arena(target))
    for call in calls.values():
        arguments = call.arguments(target, np.dtype(dtype))
        with rehearsal:
            call.function(**{**call.options, **arguments})
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda kernel: kernel.compile(), rehearsal.kernels))


class Comparison:
    """Does launches on the GPU and on the machine, and reports what differs."""

    def __init__(self, report: Report) -> None:
        self.program = ""
        self.launches = self.same = self.near = 0
        self._report = report
        self._machine = Machine(str(build.machine()), os.cpu_count() or 1)

    def launch(self, launch: Launch) -> None:
        """Do a launch on both and compare what they wrote."""
        before = Memory(self._machine, launch)
        launch.run()
        module, opened = _compiled(self._machine, launch)
        threads = (launch.threads, 1, 1)
        module.run(launch.entry, launch.grid, threads, *before.arguments(), shared=launch.shared)
        different = [
            self._difference(parameter.name, array, before.content(array), opened)
            for parameter, array in launch.arrays()
            if not parameter.const
        ]
        found = [text for text in different if text]
        self.launches += 1
        self.same += not found
        self.near += bool(found)
        self._report.note(launches=self.launches, same_bits=self.same, near=self.near)

    def _difference(self, name: str, array: Any, expected: np.ndarray, opened: list[str]) -> str:
        """Return how an array differs from the machine's, "" if it does not; report it."""
        found, dtype = array.get().reshape(-1), expected.dtype
        others = found.view(np.uint8) != expected.view(np.uint8)
        count = int(others.reshape(-1, dtype.itemsize).any(axis=1).sum())
        if not count:
            return ""
        how = f"{self.program}: {name}: {count} of {found.size} differ from the emulated GPU's"
        if dtype.name in RTOL:
            a, b = found.astype(np.float64), expected.astype(np.float64)
            scale = np.abs(b[np.isfinite(b)]).max(initial=0)
            with np.errstate(invalid="ignore"):
                error = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0, np.abs(a - b))
            worst, most = float(error.max()) / scale if scale else np.inf, RTOL[dtype.name]
            how += f", by {worst:.1e} of the largest"
        else:
            worst, most = count / found.size, MOST_OTHERS
        if not opened:
            self._report.problem(f"{how}, though PTX defines every bit")
        elif not worst <= most:
            self._report.problem(f"{how}, expected {most:.1e} at most ({', '.join(opened)})")
        self._report.add("differences", {"where": how, "because": opened})
        return how


class Memory:
    """Copies of a launch's arrays on the machine, as they were before it; what overlaps is one."""

    def __init__(self, machine: Machine, launch: Launch) -> None:
        self._launch = launch
        arrays = sorted((a for _, a in launch.arrays()), key=lambda array: array.data.ptr)
        self._parts: list[tuple[int, int, Any]] = []  # first and last address, the copy
        while arrays:
            begin = arrays[0].data.ptr
            end, part = begin, []
            while arrays and (not part or arrays[0].data.ptr < end):
                part.append(arrays.pop(0))
                end = max(end, part[-1].data.ptr + part[-1].nbytes)
            offset = begin % ALIGNMENT  # kernels ask for it
            content = np.zeros(offset + end - begin, np.uint8)
            for array in part:
                first = offset + array.data.ptr - begin
                content[first : first + array.nbytes] = array.get().reshape(-1).view(np.uint8)
            self._parts.append((begin - offset, end, machine.array(content)))

    def _of(self, array: Any) -> tuple[Any, int]:
        for begin, end, copy in self._parts:
            if begin <= array.data.ptr < end:
                return copy, array.data.ptr - begin
        raise KeyError(array.data.ptr)

    def arguments(self) -> Iterator[Any]:
        """Yield the launch's arguments, addresses of the copies in place of the arrays'."""
        for parameter, value in self._launch.arguments:
            if isinstance(value, (int, float)):
                dtype = parameter.dtype(self._launch.constants)
                yield np.ctypeslib.as_ctypes_type(dtype)(value)
            elif not parameter.pointer:
                yield value
            elif value is None or not value.size:
                yield ctypes.c_uint64(0)
            else:
                copy, offset = self._of(value)
                yield ctypes.c_uint64(copy.address + offset)

    def content(self, array: Any) -> np.ndarray:
        """Return the copy of an array, flat, as it is now."""
        copy, offset = self._of(array)
        content: np.ndarray = copy.values[offset : offset + array.nbytes].view(array.dtype)
        return content


def _compiled(machine: Machine, launch: Launch) -> tuple[Any, list[str]]:
    """Return the module that a launch's kernel is in, and what is undefined in the kernel."""
    text = launch.program.specialised(launch.constants)
    return _module(machine, text, launch.program.name), _undefined(
        text, launch.program.name, launch.entry
    )


@cache
def _module(machine: Machine, text: str, name: str) -> Any:
    return machine.module(_ptx(text, name))


@cache
def _undefined(text: str, name: str, entry: str) -> list[str]:
    return undefined(_ptx(text, name), entry)


@cache
def _ptx(text: str, name: str) -> str:
    import cupy

    return ptx.compiled(text, name, f"sm_{cupy.cuda.Device().compute_capability}")


if __name__ == "__main__":
    sys.exit(main())
