"""Tests of the kernels of `cpu` compiled for narrower SIMD registers than the machine's own."""

import platform

import numpy as np
import pytest

from kernels import runtime
from kernels.runtime.compiler import compiler
from tests.invariants.test_repeatability import run_python
from tests.kernels.test_conv2d_pool import Fused, arrays
from tests.kernels.test_gemm import EVERY, check

# What the compiler is told to do without, the element type, and the lanes that are then left.
NARROWER = [("-mno-avx512f", "float32", 8), ("-mno-avx", "float64", 2)]


def check_all(dtype):
    """Check what uses SIMD registers by name, and return the lanes of one."""
    for shapes in EVERY:
        check(dtype, shapes)
    target = runtime.cpu_target()
    for F, C, pool in ((16, 1, (2, 2)), (5, 9, (1, 2))):
        x, w, b = arrays(np.dtype(dtype), (3, 7, 6, C), (F, 3, 3, C))
        Fused(target, x, w, b, pool=pool, padding=1).check()
    return target.lanes(np.dtype(dtype).itemsize)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="its compiler flags are those of x86")
@pytest.mark.parametrize("flag, dtype, lanes", NARROWER)
def test_equals_the_oracle(flag, dtype, lanes):
    code = f"from tests.kernels import test_instruction_sets as t; print(t.check_all({dtype!r}))"
    command = " ".join([*compiler().command, flag])
    assert run_python(code, CXX=command) == f"{lanes}\n"
