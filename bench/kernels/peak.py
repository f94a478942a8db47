"""The machine's limits, in operations and bytes a second, measured with kernels of their own.

python -m bench.kernels.peak
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bench.measure import synchronizer
from kernels.runtime import Source, Target, choose_target

_SOURCE = Source("peak.cu", Path(__file__).with_name("peak.cu").read_text(), packaged=False)
_FMA_SECONDS = 2e-3
_COPY_BYTES = 128 * 2**20  # each way: four times a large last-level cache
_LARGEST_REGISTER = 64 // 4  # float32 elements
_CHAINS = 12

#: A call, and how much it did: operations or bytes.
Peak = tuple[Callable[[], Any], int]


def multiply_adds(target: Target) -> Peak:
    """Return a call that only does float32 multiply-adds, on every core."""
    blocks, threads = (64, 1) if target.name == "cpu" else (32 * 132, 256)
    y = target.zeros((blocks * threads * _CHAINS * _LARGEST_REGISTER,), np.float32)
    operations = target.zeros((blocks * threads,), np.int64)
    kernel = _SOURCE.kernel("fma_peak", target, np.dtype(np.float32))

    def run(turns: int) -> int:
        kernel((blocks, 1, 1), threads, y, operations, turns, 0.5)
        return int(operations.sum())  # waits for a GPU

    turns = 100
    run(turns)  # compiled outside of the clock
    while True:
        start = time.perf_counter()
        done = run(turns)
        if time.perf_counter() - start > _FMA_SECONDS:
            break
        turns *= 2
    return lambda: kernel((blocks, 1, 1), threads, y, operations, turns, 0.5), done


def copying(target: Target, size: int = _COPY_BYTES) -> Peak:
    """Return a call that copies memory too large for the caches; bytes read and written count."""
    count = size // 4
    x, y = target.zeros((count,), np.float32), target.zeros((count,), np.float32)
    x += 1  # unwritten pages of zeros may all be the same page
    y += 1
    kernel = _SOURCE.kernel("copy", target, np.dtype(np.float32))
    grid = target.stride_grid(count)
    return lambda: kernel(grid, target.threads, x, y, count), 2 * size


def main() -> None:
    target, _ = choose_target()
    synchronize = synchronizer(target)
    for name, unit, (run, work) in (
        ("multiply-adds", "GFLOP/s", multiply_adds(target)),
        ("copying", "GB/s", copying(target)),
    ):
        rates = []
        for _ in range(10):
            start = time.perf_counter()
            run()
            synchronize()
            rates.append(work / (time.perf_counter() - start) / 1e9)
        print(f"{name:<14} median {np.median(rates):8.1f}  best {max(rates):8.1f} {unit}")


if __name__ == "__main__":
    main()
