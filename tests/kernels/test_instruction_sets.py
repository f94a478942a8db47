"""Tests of the kernels of `cpu` compiled for narrower SIMD registers than the machine's own."""

import platform

import numpy as np
import pytest

import kernels
from kernels import runtime
from kernels.runtime.compiler import compiler
from tests.cases import CASES
from tests.cases.check import check as check_case
from tests.invariants.test_repeatability import run_python
from tests.kernels.test_conv2d_pool import Fused, arrays
from tests.kernels.test_gemm import EVERY, check
from tests.kernels.test_winograd import check as check_winograd

# What the compiler is told to do without, the element type, and the lanes that are then left. Every
# kernel is compiled anew for each: processors without AVX, the oldest, are left to CI.
NARROWER = [
    ("-mno-avx512f", "float32", 8),
    ("-mno-avx512f", "float64", 4),
    pytest.param("-mno-avx", "float64", 2, marks=pytest.mark.slow),
]
# Functions that load and store some lanes of a register, compare them, or store whole numbers.
IN_LANES = ("max_pool2d", "max_pool2d_backward", "softmax", "softmax_cross_entropy", "batch_norm")


def check_all(dtype):
    """Check what uses SIMD registers by name, and return the lanes of one."""
    for shapes in EVERY:
        check(dtype, shapes)
    target = runtime.cpu_target()
    for F, C, pool in ((16, 1, (2, 2)), (5, 9, (1, 2))):
        x, w, b = arrays(np.dtype(dtype), (3, 7, 6, C), (F, 3, 3, C))
        Fused(target, x, w, b, pool=pool, padding=1).check()
    check_winograd(target, np.dtype(dtype), 2, (7, 13), 11, 19)
    for name in IN_LANES:
        for sizes in CASES[name].sizes.values():
            check_case(target, np.dtype(dtype), name, **sizes)
    x = np.random.default_rng(0).standard_normal(2**22 + 5).astype(dtype)
    np.testing.assert_array_equal(kernels.relu(x), np.maximum(x, 0))  # larger than the caches
    return target.lanes(np.dtype(dtype).itemsize)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="its compiler flags are those of x86")
@pytest.mark.parametrize("flag, dtype, lanes", NARROWER)
def test_equals_the_oracle(flag, dtype, lanes):
    code = f"from tests.kernels import test_instruction_sets as t; print(t.check_all({dtype!r}))"
    command = " ".join([*compiler().command, flag])
    assert run_python(code, CXX=command) == f"{lanes}\n"
