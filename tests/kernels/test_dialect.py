"""The words of the dialect on `cuda`: warps, shuffles, shared memory, tensor-core products."""

from pathlib import Path

import numpy as np
import pytest

from kernels.runtime.source import Source
from tests.lib import rounding

DEVICE = Path(__file__).parents[1] / "device"
FLOAT = np.dtype(np.float32)


@pytest.fixture
def target(cuda):
    return cuda


@pytest.fixture
def zeros(target):
    """As many zeros as asked for, of a type."""
    return lambda count, dtype=np.int32: target.array(np.zeros(count, dtype))


def source(name):
    return Source(f"{name}.cu", (DEVICE / f"{name}.cu").read_text(), packaged=False)


def product(target, precision, a, b):
    """Return a (16 x K) b (K x 8) as tensor cores have it."""
    d = target.empty((16, 8), np.float32)
    kernel = source("mma_product").kernel("mma_product", target, FLOAT, PRECISION=precision)
    kernel((1, 1, 1), 32, *(target.array(m, np.float32) for m in (a, b)), d)
    return d.get()


@pytest.mark.parametrize("precision", ["fp16", "bf16", "tf32"])
def test_mma_reproduces_the_fragment_layout(target, precision):
    rng, K = np.random.default_rng(0), 8 if precision == "tf32" else 16
    # Small whole numbers are exact in every type, so any misplaced element shows.
    a, b = rng.integers(-8, 9, (16, K)), rng.integers(-8, 9, (K, 8))
    np.testing.assert_array_equal(product(target, precision, a, b), a @ b)


def through_mma(target, precision, values):
    """Return 64 numbers times one, each as an element of the left and of the right operand."""
    K = 8 if precision == "tf32" else 16
    a = np.zeros((16, K), np.float32)
    a[:8, :8] = values.reshape(8, 8)
    b = np.resize(a[:8, :8], (K, 8))
    left = product(target, precision, a, np.eye(K, 8))
    right = product(target, precision, np.eye(16, K), b)
    np.testing.assert_array_equal(left[:8], right[:8])
    return left[:8].ravel()


@pytest.mark.parametrize("precision", ["fp16", "bf16", "tf32"])
def test_operands_are_rounded_to_nearest(target, precision):
    """Against the emulation that the tests of the layers use."""
    rng = np.random.default_rng(1)
    values = rng.normal(size=64) * 2.0 ** rng.integers(-30, 16, 64)  # fp16's subnormals too
    values = values.astype(np.float32)
    bits = {"fp16": 11, "bf16": 8, "tf32": 11}[precision]
    half = 2.0**-bits  # of the distance between neighbours above 1
    # Ties: halfway to the next number from an even and an odd one, and just off it.
    values[:6] = 1 + half, 1 + 3 * half, -1 - half, 1 + half * 1.001, 1 + half * 0.999, 1
    values[6:10] = 65519.9, 2.0**-25, 2.0**-24 * 1.5, 0
    expected = rounding.rounded(values, precision)
    np.testing.assert_array_equal(through_mma(target, precision, values), expected)
    up, even = 1 + 2 * half, 1 + 4 * half
    ties = [up, even, -up] if precision == "tf32" else [1, even, -1]
    np.testing.assert_array_equal(expected[:6], [*ties, up, 1, 1])


@pytest.mark.parametrize("precision", ["fp16", "bf16", "tf32"])
def test_infinity_and_nan_stay(target, precision):
    K = 8 if precision == "tf32" else 16
    a, b = np.zeros((16, K)), np.zeros((K, 8))
    a[:5, 0], b[0, 0] = [np.inf, np.nan, -np.inf, 65520, -0.0], 1
    beyond = np.inf if precision == "fp16" else 65536  # what fp16 cannot hold
    found = product(target, precision, a, b)[:5, 0]
    np.testing.assert_array_equal(found, [np.inf, np.nan, -np.inf, beyond, 0])


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("shuffle_index", lambda lane: (lane + 5) % 32),
        ("shuffle_xor", lambda lane: lane ^ 9),
        ("shuffle_up", lambda lane: lane - 3 if lane >= 3 else lane),
        ("shuffle_down", lambda lane: lane + 3 if lane < 29 else lane),
        ("ballot", lambda lane: sum(1 << i for i in range(0, 32, 3))),
        ("half_warps", lambda lane: lane ^ 1),
    ],
)
def test_warp_operations(target, zeros, entry, expected):
    y = zeros(64)
    source("warp_operations").kernel(entry, target, FLOAT)((1, 1, 1), 64, y)
    wanted = np.array([expected(lane) for lane in range(32)] * 2, np.uint32).view(np.int32)
    if entry != "ballot":  # a lane's value is its thread index
        wanted = wanted + np.repeat([0, 32], 32)
    np.testing.assert_array_equal(y.get(), wanted)


def test_a_warp_passes_values_through_shared_memory_with_syncwarp(target, zeros):
    y = zeros(64)
    source("warp_operations").kernel("syncwarp", target, FLOAT)((1, 1, 1), 64, y)
    np.testing.assert_array_equal(y.get(), [lane // 32 * 32 + 31 - lane % 32 for lane in range(64)])


def test_dynamic_shared_memory_of_the_size_asked_for(target):
    x, y = target.array(np.arange(96, dtype=np.float32)), target.empty((96,), np.float32)
    kernel = source("warp_operations").kernel("dynamic_reverse", target, FLOAT)
    kernel((1, 1, 1), 96, x, y, 96, shared=96 * 4)
    np.testing.assert_array_equal(y.get(), x.get()[::-1])


@pytest.mark.parametrize("entry", ["copy_wide", "copy_narrow"])
@pytest.mark.parametrize("count", [64, 61, 33, 0])  # a tail of one, zeros in both groups, all zeros
def test_asynchronous_copies_read_what_is_valid_and_no_more(target, entry, count):
    values = 1 + np.arange(count, dtype=np.float32)  # beyond them nothing may be read
    x, y = target.array(values), target.empty((64,), np.float32)
    source("async_copies").kernel(entry, target, FLOAT)((1, 1, 1), 32, x, y, count)
    np.testing.assert_array_equal(y.get()[::-1], np.pad(values, (0, 64 - count)))


def test_atomics_lose_no_update(target, zeros):
    y = zeros(7)
    source("warp_operations").kernel("histogram", target, FLOAT)((8, 1, 1), 64, y)
    np.testing.assert_array_equal(y.get(), np.bincount(np.arange(512) % 7, minlength=7))
