"""No barrier of a shipped kernel can be deleted without the emulated GPU reporting it."""

import numpy as np
import pytest

from kernels.runtime.source import Source
from tests.gpu.delete_barriers import Barrier, barriers, try_all
from tests.lib.paths import CALLS

TWO = """// The second barrier is not needed.
#include "dialect/dialect.cuh"

KERNEL two(const T *__restrict__ x, T *__restrict__ y) {
    __shared__ T tile[64];
    tile[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    __syncthreads();
    y[threadIdx.x] = tile[63 - threadIdx.x];
}
"""


@pytest.mark.slow
def test_every_barrier_is_needed_and_its_deletion_is_caught(emulated):
    verdicts = try_all(CALLS)
    survivors = [str(verdict.barrier) for verdict in verdicts if verdict.call is None]
    assert verdicts and not survivors
    # As what a missing barrier is, with its kernel and block: not by some other failure.
    for verdict in verdicts:
        assert ", block (" in verdict.report, verdict
        assert " races with " in verdict.report or " has written" in verdict.report, verdict


def two(target):
    source = Source("two.cu", TWO, packaged=False)
    x, y = target.array(np.arange(64, dtype=np.float32)), target.empty((64,), np.float32)
    source.kernel("two", target, x.dtype)((1, 1, 1), 64, x, y)


def test_a_barrier_that_is_not_needed_survives(emulated, tmp_path):
    (tmp_path / "two.cu").write_text(TWO)
    verdicts = try_all({"two": two}, tmp_path)
    # Either can be deleted, but not both: the other one then does its work.
    assert [(str(verdict.barrier), verdict.call) for verdict in verdicts] == [
        ("kernels/two.cu:7", None),
        ("kernels/two.cu:8", None),
    ]


def test_a_barrier_that_no_call_has_survives(emulated, tmp_path):
    (tmp_path / "two.cu").write_text(TWO)
    assert [verdict.call for verdict in try_all({}, tmp_path)] == [None, None]


def test_a_barrier_is_one_in_code(tmp_path):
    (tmp_path / "some.cu").write_text(
        "// before __syncthreads();\n"
        "#define __syncthreads() wait()\n"
        "static inline void __syncthreads() {}\n"
        "if (x) { __syncthreads(); y = 1; }  // and __syncthreads();\n"
        "if (__syncthreads_or(x)) return;\n"
    )
    assert barriers(tmp_path) == {Barrier("kernels/some.cu", 4)}


def test_two_barriers_of_a_line_are_not_passed_over(tmp_path):
    (tmp_path / "some.cu").write_text("__syncthreads();" * 2 + "\n")
    with pytest.raises(AssertionError, match=r"some\.cu:1: "):
        barriers(tmp_path)
