"""The host's time for a call of each public function, and for a bare call of compiled code.

Arrays are so small that computing takes almost no time. The bare call is that of memcpy by ctypes
or, on a GPU, of an empty RawKernel by CuPy; nothing is checked in it.

python -m pytest bench/kernels/test_overhead.py -k conv2d
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import kernels
from bench.kernels.contenders import host
from bench.measure import clock, measure, rounds_within, verify
from tests.cases import CASES
from tests.cases.case import Call, flat

pytestmark = pytest.mark.benchmark(timer=clock)

REPEATS = 300  # calls in a sample, which is their mean
SECONDS_PER_ROW = 1.0
RTOL = 1e-4


FUNCTIONS = [name for name in kernels.__all__ if name[0].islower()]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_overhead(name: str, target, synchronize, smoke, benchmark):
    call = CASES[name].call(CASES[name].small)
    ours, results = prepared(call, target, np.float32)
    ours()
    in_double, expected = prepared(call, target, np.float64)
    in_double()
    verify(name, results(), expected(), RTOL)
    runs = {"kernels": ours, "bare call": bare_call(target)}
    samples = {
        who: lambda run=run: seconds_of_many(run, 2 if smoke else REPEATS, synchronize)
        for who, run in runs.items()
    }
    one_round = REPEATS * sum(sample() for sample in samples.values())
    benchmark.extra_info |= {"row": f"overhead {name}", "function": name}
    measure(benchmark, samples, 2 if smoke else rounds_within(SECONDS_PER_ROW, one_round))


def prepared(
    call: Call, target: Any, dtype: Any
) -> tuple[Callable[[], Any], Callable[[], list[Any]]]:
    """Return a call with its arrays, and a function that returns its results and updated arrays."""
    arguments, kept = call.arguments(target, dtype), []

    def run() -> None:
        kept[:] = [call.function(**arguments, **call.options)]

    def results() -> list[Any]:
        return [host(array) for array in (*flat(kept[0]), *map(arguments.get, call.in_place))]

    return run, results


def bare_call(target: Any) -> Callable[[], Any]:
    if target.name == "cpu":
        memcpy, buffer = ctypes.CDLL(None).memcpy, (ctypes.c_char * 64)()
        to, source, size = ctypes.byref(buffer, 32), ctypes.byref(buffer), ctypes.c_size_t(16)
        return lambda: memcpy(to, source, size)
    import cupy

    empty = cupy.RawKernel('extern "C" __global__ void empty() {}', "empty")
    return lambda: empty((1,), (1,), ())


def seconds_of_many(run: Callable[[], Any], count: int, synchronize: Callable[[], None]) -> float:
    """Return the mean seconds of some calls."""
    synchronize()
    start = time.perf_counter()
    for _ in range(count):
        run()
    taken = time.perf_counter() - start  # the host's time: a GPU may still be computing
    synchronize()
    return taken / count
