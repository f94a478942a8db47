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


def calls() -> dict[str, Call]:
    """Return one small call of every public function."""
    random = np.random.default_rng(0)

    def some(*shape: int) -> np.ndarray:
        return random.standard_normal(shape, np.float32)

    x, w = some(1, 4, 4, 2), some(2, 3, 3, 2)
    logits, labels = some(2, 3), np.array([0, 2])
    probabilities = np.full((2, 3), 1 / 3, np.float32)
    y, argmax = some(1, 2, 2, 2), random.integers(0, 4, (1, 2, 2, 2), np.uint8)
    images, matrix = random.integers(0, 256, (1, 4, 4), np.uint8), np.eye(2, 3)[None]
    steps = {name: abs(some(8)) for name in ("param", "grad", "velocity", "m", "v")}
    pool = {"kernel": 2}
    shape = {"x_shape": x.shape}
    sgd = {name: steps[name] for name in ("param", "grad", "velocity")}
    adam = {name: steps[name] for name in ("param", "grad", "m", "v")}
    arguments = {
        "adam_step": (adam, {"step": 1, "lr": 0.1}, ("param",)),
        "affine_warp": ({"images": images, "matrix": matrix}, {}),
        "augment": ({"images": images}, {"rotate": 9, "seed": 1}),
        "avg_pool2d": ({"x": x}, pool),
        "avg_pool2d_backward": ({"dy": y}, {**shape, **pool}),
        "col2im": ({"cols": some(9, 8)}, {**shape, **pool}),
        "conv2d": ({"x": x, "w": w, "b": some(2)}, {}),
        "conv2d_backward": ({"dy": y, "x": x, "w": w}, {}),
        "cross_entropy": ({"probabilities": probabilities, "labels": labels}, {}),
        "dropout": ({"x": x}, {"p": 0.5, "seed": 1}),
        "dropout_backward": ({"dy": y, "mask": argmax & 1}, {"p": 0.5}),
        "global_avg_pool2d": ({"x": x}, {}),
        "global_avg_pool2d_backward": ({"dy": some(1, 2)}, shape),
        "im2col": ({"x": x}, pool),
        "max_pool2d": ({"x": x}, pool),
        "max_pool2d_backward": ({"dy": y, "argmax": argmax}, {**shape, **pool}),
        "normalize": ({"images": images}, {"mean": 9, "std": 5}),
        "pool_indices": ({"argmax": argmax}, {**shape, **pool}),
        "sgd_step": (sgd, {"lr": 0.1, "momentum": 0.9}, ("param",)),
        "softmax_cross_entropy": ({"logits": logits, "labels": labels}, {}),
    }
    found = {name: case.call(case.small) for name, case in CASES.items()}
    for name, (arrays, options, *in_place) in arguments.items():
        found[name] = Call(getattr(kernels, name), arrays, options, *in_place)
    return found


FUNCTIONS = [name for name in kernels.__all__ if name[0].islower()]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_overhead(name: str, target, synchronize, smoke, benchmark):
    call = calls()[name]
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
