"""Time products on `cpu` with different tiles and print each choice's speed, the present one first.

python -m bench.kernels.tune            all choices, on one thread
python -m bench.kernels.tune BN rows    some of them

The tables are `CpuTarget.constants` (BN, BK: the panel of operand B), `division.ON_CPU` and, for
3 x 3 convolutions, `winograd.ON_CPU`. Figures are speeds relative to the present choice, geometric
means over the shapes; samples alternate.
"""

from __future__ import annotations

import math
import os
import statistics
import sys
import time
from collections.abc import Callable
from unittest import mock

os.environ.setdefault("KERNELS_THREADS", "1")

import numpy as np

import kernels
from kernels.conv import winograd
from kernels.gemm import division
from kernels.runtime import targets
from kernels.runtime.cpu import CpuTarget

CHOICES = {
    "BN": [48, 96, 144, 192],
    "BK": [512, 1024, 2048],
    "rows": [128, 256, 512, 1024],
    "blocks": [16, 64, 256],
    "splits": [4, 8, 16, 32],
    "tiles": [16, 32, 48, 64],
    "tiles_a_split": [48, 96, 192],
}
#: N, H, C, F, K of convolutions with padding, and rows, inputs, outputs of dense layers.
CONVOLUTIONS = [
    (64, 28, 16, 16, 3),
    (64, 14, 32, 64, 3),
    (64, 14, 48, 48, 3),
    (16, 28, 64, 64, 3),
    (8, 14, 256, 256, 3),
    (64, 14, 24, 48, 5),
    (16, 28, 64, 64, 5),
]
DENSE = [(256, 800, 256), (256, 2048, 512)]
TABLES = division.ON_CPU, winograd.ON_CPU
ROUNDS = 9


def calls() -> list[Callable[[], object]]:
    """Return a call of every product and of its gradients."""
    random = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return random.standard_normal(shape, dtype=np.float32)

    made: list[Callable[[], object]] = []
    for N, H, C, F, K in CONVOLUTIONS:
        x, w, dy = normal(N, H, H, C), normal(F, K, K, C), normal(N, H, H, F)
        made.append(lambda x=x, w=w: kernels.conv2d(x, w, padding="same"))
        made.append(lambda x=x, w=w, dy=dy: kernels.conv2d_backward(dy, x, w, padding="same"))
    for rows, inputs, outputs in DENSE:
        x, w, dy = normal(rows, inputs), normal(outputs, inputs), normal(rows, outputs)
        made.append(lambda x=x, w=w: kernels.dense(x, w))
        made.append(lambda x=x, w=w, dy=dy: kernels.dense_backward(dy, x, w))
    return made


def timed(target: CpuTarget, table: dict[str, int], call: Callable[[], object]) -> float:
    """Return the seconds of one call with a choice."""
    chosen = TABLES[0] if table.keys() <= TABLES[0].keys() else TABLES[1]
    present = dict(chosen)
    chosen.update(table)
    try:
        with mock.patch.object(targets, "_CPU", target):
            start = time.process_time()
            call()
            return time.process_time() - start
    finally:
        chosen.update(present)


def main() -> None:
    """Print a line for every value of the named choices."""
    for name in sys.argv[1:] or CHOICES:
        targets, tables = {}, {}
        for value in CHOICES[name]:
            target = CpuTarget()
            if name in target.constants:
                target.constants = target.constants | {name: value}
            targets[value] = target
            tables[value] = {} if name in target.constants else {name: value}
        present = (CpuTarget.constants | TABLES[0] | TABLES[1])[name]
        logs: dict[int, list[float]] = {value: [] for value in CHOICES[name]}
        for call in calls():
            samples: dict[int, list[float]] = {value: [] for value in CHOICES[name]}
            for _ in range(ROUNDS + 1):
                for value, target in targets.items():
                    samples[value].append(timed(target, tables[value], call))
            medians = {value: statistics.median(taken[1:]) for value, taken in samples.items()}
            for value, median in medians.items():
                logs[value].append(math.log(medians[present] / median))
        for value in sorted(logs, key=lambda value: value != present):
            print(f"{name} {value}: {math.exp(statistics.fmean(logs[value])):.3f}", flush=True)


if __name__ == "__main__":
    main()
