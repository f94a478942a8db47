"""Timing: contenders take turns, so that a shared machine's noise affects all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

#: A pause in which the worker threads of the contender before, which spin for a while, fall asleep.
PAUSE_SECONDS = 0.01
#: The same for ONNX Runtime and PyTorch in other processes, whose threads spin for much longer.
IDLE_SECONDS = 0.1

#: How long a sample's calls go on, and the untimed calls before them: a core that slept is slow at
#: first.
CALLS_SECONDS = 0.005

Sample = Callable[[], float]  #: runs a contender once and returns its seconds


class WrongResult(AssertionError):  # noqa: N818  it is the result that is wrong
    """A contender computes something else: its row must not be timed."""


class Clock:
    """What pytest-benchmark reads: the sum of the seconds that our samples reported.

    The host's work between them (making arrays, pipes, waiting) is not in it.
    """

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


clock = Clock()


def synchronizer(target: Any) -> Callable[[], Any]:
    """Return a function that waits until a target has finished."""
    if target.name == "cpu":
        return lambda: None
    import cupy

    return cupy.cuda.runtime.deviceSynchronize


def seconds_of_call(run: Callable[[], Any], synchronize: Callable[[], None]) -> float:
    """Return the median seconds of calls, after untimed ones that warm caches and threads."""

    def calls() -> list[float]:
        seconds: list[float] = []
        end = time.perf_counter() + CALLS_SECONDS
        while not seconds or time.perf_counter() < end:
            start = time.perf_counter()
            run()
            synchronize()
            seconds.append(time.perf_counter() - start)
        return seconds

    time.sleep(PAUSE_SECONDS)
    calls()
    return float(np.median(calls()))


def measure(benchmark: Any, contenders: dict[str, Sample], rounds: int) -> None:
    """Time contenders in turns; pytest-benchmark records the first, which is ours.

    The samples of the others go to `extra_info`, in the order of the rounds.
    """
    (_, ours), *others = contenders.items()
    samples: dict[str, list[float]] = {name: [] for name, _ in others}

    def time_others() -> None:
        for name, sample in others:
            samples[name].append(sample())

    def time_ours() -> None:
        clock.seconds += ours()

    benchmark.pedantic(time_ours, setup=time_others, rounds=rounds)
    benchmark.extra_info["samples"] = samples


def rounds_within(seconds: float, one_round: float, most: int = 30) -> int:
    """Return how many rounds fit into these seconds: 5 at least."""
    return int(min(most, max(5, seconds / max(one_round, 1e-9))))


def verify(name: str, actual: list[Any], expected: list[Any], rtol: float) -> None:
    """Raise WrongResult unless |actual - expected| <= rtol * max|expected| for all arrays.

    NaN, another shape, and zeros where other values are expected fail.
    """
    if len(actual) != len(expected):
        raise WrongResult(f"{name}: {len(actual)} results, expected {len(expected)}")
    for position, (found, right) in enumerate(zip(actual, expected, strict=True)):
        found, right = np.asarray(found, np.float64), np.asarray(right, np.float64)
        if found.shape != right.shape:
            raise WrongResult(f"{name}: result {position} is {found.shape}, not {right.shape}")
        error, scale = np.abs(found - right).max(initial=0), np.abs(right).max(initial=0)
        if not error <= rtol * scale:
            raise WrongResult(f"{name}: result {position} is {error:.2e} off, of {scale:.2e}")
