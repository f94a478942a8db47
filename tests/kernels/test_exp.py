"""Tests of the dialect's exp, which `cpu` takes of a SIMD register at a time."""

import numpy as np
import pytest

from kernels.runtime import Source
from tests.lib.support import host

SOURCE = Source(
    "exp.cu",
    """#include "dialect/dialect.cuh"
KERNEL exponentials(const T *__restrict__ x, T *__restrict__ y, int64 count) {
    constexpr int LANES = Simd<acc_t>::LANES;
    GRID_STRIDE(i, count / LANES)
        store_lanes(y + i * LANES, exp_lanes(load_lanes(x + i * LANES)));
}
""",
    packaged=False,
)


def exponentials(target, x):
    x, y = target.array(x), target.empty(x.shape, x.dtype)
    kernel = SOURCE.kernel("exponentials", target, x.dtype)
    kernel(target.stride_grid(x.size), target.threads, x, y, x.size)
    return host(y)


#: Of the types of sums: kernels of float16 and bfloat16 take it of float32.
of_sums = pytest.mark.parametrize("dtype", [np.dtype("float32"), np.dtype("float64")], ids=str)


@of_sums
@pytest.mark.parametrize("low, high", [(-105, 90), (-746, 710), (-1, 1), (-1e-6, 1e-6)])
def test_exp_is_right_to_two_units_of_the_last_place(target, dtype, low, high):
    x = np.random.default_rng(0).uniform(low, high, 2**16).astype(dtype)
    y = exponentials(target, x)
    with np.errstate(over="ignore"):
        expected = np.exp(x.astype(np.longdouble if dtype == np.float64 else np.float64))
        rounded = expected.astype(dtype)
    assert np.array_equal(np.isinf(y), np.isinf(rounded))
    if target.name == "cuda" and dtype == np.float32:
        # CuPy has NVRTC compile with -ftz=true: what float32 holds with fewer digits becomes 0.
        tiny = np.finfo(dtype).tiny
        subnormal = rounded < tiny
        assert np.isin(y[subnormal], (0, tiny)).all() and (y[rounded < tiny / 2] == 0).all()
        expected[subnormal] = rounded[subnormal] = y[subnormal]
    finite = np.isfinite(rounded)
    error = abs(y[finite] - expected[finite]) / np.spacing(rounded[finite])
    assert error.max(initial=0) <= 2


@of_sums
def test_exp_of_special_values(target, dtype):
    x = np.resize(np.array([np.nan, np.inf, -np.inf, 1e4, -1e4, 0, -0.0, 1], dtype), 64)
    expected = np.resize([np.nan, np.inf, 0, np.inf, 0, 1, 1, np.e], 64)
    np.testing.assert_allclose(exponentials(target, x), expected, rtol=1e-6)
