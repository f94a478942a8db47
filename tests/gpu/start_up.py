"""Time what compiling takes before the first step of a training on a GPU, and what the cache takes.

    python -m tests.gpu.start_up

The texts are those that a training on the emulated GPU compiles. NVRTC makes an H100's machine code
of them, as it would there: one after the other, and in as many threads as there are cores. Then new
processes find all of it in CuPy's cache. That a driver loads it on a GPU is not in this time.
Results go to bench/results/start-cuda.json. Nothing else should run meanwhile.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from statistics import median
from typing import Any
from unittest.mock import patch

from bench.machine import machine
from kernels.runtime.cuda import CudaTarget
from kernels.runtime.jobs import run, thread_count
from tests.lib import nvrtc

from . import device
from .profile import RESULTS, planned_steps

ARCH, ROUNDS = "sm_90", 3
TRAININGS = (("speedrun", "fp32"), ("speedrun", "bf16"))


def main() -> None:
    """Measure each training, and write the results."""
    device.turn_on()
    found = {
        f"{network}, {precision}": measured(launched(network, precision))
        | {"from the cache": cached(network, precision)}
        for network, precision in TRAININGS
    }
    for name, figures in found.items():
        print(name, *(f"{key} {value}" for key, value in figures.items()), sep="; ")
    document = {"made by": "python -m tests.gpu.start_up", "arch": ARCH, "NVRTC": nvrtc.version()}
    document |= {"load before": round(os.getloadavg()[0], 2), **found, "machine": machine()}
    path = RESULTS / "start-cuda.json"
    path.write_text(json.dumps(document, indent=2) + "\n")
    print(f"wrote {path}")


def launched(network: str, precision: str) -> list[tuple[str, str]]:
    """Return (name, text) of what a training step on the emulated GPU has compiled."""
    texts: list[tuple[str, str]] = []
    module = CudaTarget._module

    def noting(self: CudaTarget, name: str, text: str) -> Any:
        texts.append((name, text))
        return module(self, name, text)

    with patch.object(CudaTarget, "_module", noting):
        planned_steps(network, 512, 1, lambda step: step(), precision)
    return texts


def measured(texts: Sequence[tuple[str, str]]) -> dict[str, float]:
    """Return the seconds of NVRTC, medians of rounds, and those of the longest text."""
    jobs = [partial(nvrtc.compiled, text, name, ARCH) for name, text in texts]
    alone = [median(seconds(job) for _ in range(ROUNDS)) for job in jobs]
    together = median(seconds(partial(run, jobs)) for _ in range(ROUNDS))
    return {
        "texts": len(jobs),
        "longest": round(max(alone), 2),
        "one after the other": round(sum(alone), 2),
        f"in {thread_count()} threads": round(together, 2),
    }


def cached(network: str, precision: str) -> float:
    """Return the seconds that new processes take to bind from a warm cache, median of rounds."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn, max_tasks_per_child=1) as new:
        rounds = [new.submit(_bind, network, precision).result() for _ in range(ROUNDS)]
    return round(median(rounds), 3)


def _bind(network: str, precision: str) -> float:
    device.turn_on()
    import cupy

    binder = CudaTarget.binder
    loads, total = 0.0, 0.0

    class Module(cupy.cuda.function.Module):  # type: ignore[misc]
        def load(self, code: bytes) -> None:
            nonlocal loads
            loads += seconds(lambda: super(Module, self).load(code))

    def timed(*arguments: Any) -> Any:
        nonlocal total
        begin = time.perf_counter()
        bound = binder(*arguments)
        total += time.perf_counter() - begin
        return bound

    with (
        patch.object(cupy.cuda.function, "Module", Module),
        patch.object(CudaTarget, "binder", timed),
        patch.object(CudaTarget, "compile", lambda self, jobs: [job() for job in jobs]),
    ):
        planned_steps(network, 512, 1, lambda step: step(), precision)
    return total - loads


def seconds(job: Callable[[], Any]) -> float:
    """Return how long a call takes."""
    begin = time.perf_counter()
    job()
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
