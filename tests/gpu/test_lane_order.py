"""No result depends on the order in which lanes, warps and blocks run: that would be a race.

Beside the checks of each access: those know of races in shared memory and between blocks, but not
of what the threads of one block pass to each other through an array.
"""

from pathlib import Path

import numpy as np
import pytest

from kernels import lowlevel, runtime
from kernels.runtime import Source
from tests.lib.calls import CALLS, PLANNED

from . import device

EVERY = CALLS | PLANNED
TESTS = Path(__file__).parents[1]
FLOAT = np.dtype(np.float32)


@pytest.fixture
def target(emulated):
    return runtime.cuda_target()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", EVERY)
def test_every_function_gives_the_same_bits_in_the_opposite_order(target, name, dtype):
    call, dtype = EVERY[name], np.dtype(dtype)
    expected = call(call.arguments(target, dtype))
    with device.opposite_order():
        found = call(call.arguments(target, dtype))
    for one, other in zip(expected, found, strict=True):
        assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize("name", ["conv2d", "conv2d_backward", "dense", "dense_backward"])
@pytest.mark.parametrize("precision", ["tf32", "bf16", "fp16"])
def test_and_so_do_products_on_tensor_cores(target, name, precision):
    if precision not in target.precisions:
        pytest.skip(f"{target} has no {precision} products")
    with lowlevel.precision(precision):
        test_every_function_gives_the_same_bits_in_the_opposite_order(target, name, FLOAT)


PASSED = """#include "dialect/dialect.cuh"
KERNEL passed(const T *__restrict__ x, T *y, int count) {
    BLOCK_STRIDE(i, count) y[i] = x[i];
    BLOCK_STRIDE(i, count) y[count + i] = y[count - 1 - i];
}
"""
DEPENDENT = {
    "float_atomic": (TESTS / "faults" / "float_atomic.cu").read_text(),
    "passed": PASSED,
}


@pytest.mark.parametrize("name", DEPENDENT)
def test_a_result_that_depends_on_the_order_is_noticed(target, name):
    kernel = Source(f"{name}.cu", DEPENDENT[name], packaged=False).kernel(name, target, FLOAT)
    x = target.array(np.random.default_rng(0).standard_normal(64 * 3, dtype=FLOAT))

    def result():
        y = target.array(np.zeros(2 * x.size, FLOAT))
        kernel((1, 1, 1), 64, x, y, x.size)
        return y.get().tobytes()

    expected = result()
    assert result() == expected
    with device.opposite_order():
        assert result() != expected
