"""Time sizes of blocks on `cpu` and print the speed of each, the present one first.

python -m bench.kernels.tune --keep     this machine's sizes: the best are used from then on
python -m bench.kernels.tune            all sizes
python -m bench.kernels.tune BK rows    some of them

With --keep the best are written to the table that `kernels/runtime/blocks.py` reads, if they are
at least 5% faster. Other sizes (`division.ON_CPU`, and `winograd.ON_CPU` for 3 x 3 filters) are the
same on every machine, since orders of summation depend on them. Figures are speeds relative to the
present size, geometric means over some calls, on one thread; samples alternate.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from unittest import mock

os.environ.setdefault("KERNELS_THREADS", "1")

import numpy as np

import kernels
from kernels.conv import winograd
from kernels.gemm import division
from kernels.runtime import blocks, targets
from kernels.runtime.blocks import Blocks
from kernels.runtime.cpu import CpuTarget

#: Sizes that depend on the machine.
OF_MACHINE = {
    "BK": [512, 1024, 2048],
    "near_bytes": [2**16, 2**18, 2**20],
    "stream_bytes": [2**22, 2**23, 2**24, 2**25],
}
CHOICES = OF_MACHINE | {
    "rows": [128, 256, 512, 1024],
    "blocks": [16, 64, 256],
    "splits": [4, 8, 16, 32],
    "tiles": [16, 32, 48, 64],
    "tiles_a_split": [48, 96, 192],
}
LEAST_GAIN = 1.05  # less may be noise
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


def calls(name: str) -> list[Callable[[], object]]:
    """Return calls whose speed may depend on a choice."""
    random = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return random.standard_normal(shape, dtype=np.float32)

    made: list[Callable[[], object]] = []
    if name == "near_bytes":  # a row is read twice
        rows = [normal(2**21 // C, C) for C in (2**14, 2**15, 2**17, 2**19)]
        return [partial(kernels.softmax, x) for x in rows]
    if name == "stream_bytes":  # 4 to 64 MiB
        images = [normal(N, 8, 8, 32) for N in (2**9, 2**10, 2**11, 2**12, 2**13)]
        pools = [partial(kernels.avg_pool2d, x, 3, stride=1, padding=1) for x in images]
        return [*(partial(kernels.relu, x) for x in images), *pools]
    deep = [c for c in CONVOLUTIONS if c[2] * c[4] ** 2 > 1024] if name == "BK" else CONVOLUTIONS
    for N, H, C, F, K in deep:
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


def speeds(name: str) -> tuple[int, dict[int, float]]:
    """Return the present value of a size, and the speed with each value relative to it."""
    own = targets.cpu_target().blocks
    present = (own._asdict() | TABLES[0] | TABLES[1])[name]
    values = dict.fromkeys([present, *CHOICES[name]])
    used, tables = {}, {}
    for value in values:
        used[value], tables[value] = CpuTarget(), {}
        if name in Blocks._fields:
            used[value].blocks = own._replace(**{name: value})
        else:
            tables[value] = {name: value}
    logs: dict[int, list[float]] = {value: [] for value in values}
    for call in calls(name):
        samples: dict[int, list[float]] = {value: [] for value in values}
        for _ in range(ROUNDS + 1):
            for value, target in used.items():
                samples[value].append(timed(target, tables[value], call))
        medians = {value: statistics.median(taken[1:]) for value, taken in samples.items()}
        for value, median in medians.items():
            logs[value].append(math.log(medians[present] / median))
    return present, {value: math.exp(statistics.fmean(log)) for value, log in logs.items()}


def main() -> None:
    """Print a line for every value of the chosen sizes, and keep the best."""
    parser = argparse.ArgumentParser(description="Time sizes of blocks on cpu.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(CHOICES))
    parser.add_argument(
        "--keep", action="store_true", help="write this machine's best to its table"
    )
    options = parser.parse_args()
    unknown = set(options.names) - CHOICES.keys()
    if unknown:
        parser.error(
            f"NAME: got {', '.join(sorted(unknown))}, expected some of {', '.join(CHOICES)}"
        )
    kept = {}
    for name in options.names or (OF_MACHINE if options.keep else CHOICES):
        present, found = speeds(name)
        for value, speed in found.items():
            print(f"{name} {value}: {speed:.3f} times the speed of {present}", flush=True)
        best = max(found, key=lambda value: found[value])
        if name in OF_MACHINE:
            kept[name] = best if found[best] >= LEAST_GAIN else present
    if options.keep:
        register_bytes = targets.cpu_target().lanes(1)
        print(f"{blocks.keep(register_bytes, kept)}: {blocks.machine(register_bytes)}: {kept}")


if __name__ == "__main__":
    main()
