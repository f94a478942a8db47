"""Kernels compared with naive code, NumPy or CuPy with BLAS, and PyTorch, row by row.

python -m pytest bench/kernels/test_kernels.py -k "conv2d and speedrun"
"""

from __future__ import annotations

import pytest

from bench.kernels.contenders import Row
from bench.kernels.rows import rows
from bench.measure import (
    CALLS_SECONDS,
    PAUSE_SECONDS,
    clock,
    measure,
    rounds_within,
    seconds_of_call,
    verify,
)
from kernels.runtime import Target

pytestmark = pytest.mark.benchmark(timer=clock)

SECONDS_PER_ROW = 1.5


def pytest_generate_tests(metafunc):
    table = list(rows(smoke=metafunc.config.getoption("--smoke")))
    metafunc.parametrize("row", table, ids=[row.name for row in table])


def test_kernel(row: Row, target: Target, peaks, synchronize, smoke, benchmark):
    work = row.prepare(target, **row.sizes)
    for name, contender in work.contenders.items():
        verify(name, contender.read(contender.run()), work.expected, work.rtol)
    samples = {
        name: lambda contender=contender: contender.seconds(synchronize)
        for name, contender in work.contenders.items()
    }
    peak, done = peaks[row.bound]
    samples["peak"] = lambda: seconds_of_call(peak, synchronize)
    one_round = sum(2 * max(sample(), CALLS_SECONDS) + PAUSE_SECONDS for sample in samples.values())
    rounds = 2 if smoke else rounds_within(SECONDS_PER_ROW, one_round)
    benchmark.extra_info |= {
        "row": row.name,
        "operation": row.operation,
        "shape": row.shape,
        "sizes": row.sizes,
        "bound": row.bound,
        "operations": work.operations,
        "bytes": work.bytes,
        "peak_work": done,
    }
    measure(benchmark, samples, rounds)
