"""The words of the dialect on `simt`: warps, shuffles, shared memory, tensor-core products."""

from pathlib import Path

import numpy as np
import pytest

from kernels.runtime.simt import SimtError, SimtTarget
from kernels.runtime.source import Source

DEVICE = Path(__file__).parent / "device"
FLOAT = np.dtype(np.float32)


@pytest.fixture(params=["forward", "reverse", "random"])
def target(request):
    target = SimtTarget()
    target.order = request.param
    return target


def source(name):
    return Source(f"{name}.cu", (DEVICE / f"{name}.cu").read_text(), ahead=False)


def bf16_bits(values):
    return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)


@pytest.mark.parametrize("element", ["fp16", "bf16"])
def test_mma_reproduces_the_fragment_layout(target, element):
    rng = np.random.default_rng(0)
    # Small whole numbers are exact in both types, so any misplaced element shows.
    a, b = rng.integers(-8, 9, (16, 16)), rng.integers(-8, 9, (16, 8))
    bits = bf16_bits if element == "bf16" else lambda v: v.astype(np.float16).view(np.uint16)
    d = np.full((16, 8), np.nan, np.float32)
    kernel = source("mma_product").kernel(f"mma_{element}", target, FLOAT)
    kernel((1, 1, 1), 32, bits(a), bits(b), d)
    np.testing.assert_array_equal(d, a @ b)


def test_fp16_subnormals_infinity_and_nan(target):
    a, b = np.zeros((16, 16), np.float16), np.zeros((16, 8), np.float16)
    a[0, 0], a[1, 0], a[2, 0], b[0, 0] = 2.0**-24, np.inf, np.nan, 1
    d = np.empty((16, 8), np.float32)
    kernel = source("mma_product").kernel("mma_fp16", target, FLOAT)
    kernel((1, 1, 1), 32, a.view(np.uint16), b.view(np.uint16), d)
    assert d[0, 0] == 2.0**-24
    assert d[1, 0] == np.inf
    assert np.isnan(d[2, 0])


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
def test_warp_operations(target, entry, expected):
    y = np.full(64, -1, np.int32)
    source("warp_operations").kernel(entry, target, FLOAT)((1, 1, 1), 64, y)
    wanted = np.array([expected(lane) for lane in range(32)] * 2, np.uint32).view(np.int32)
    if entry != "ballot":  # a lane's value is its thread index
        wanted = wanted + np.repeat([0, 32], 32)
    np.testing.assert_array_equal(y, wanted)


def test_a_warp_passes_values_through_shared_memory_with_syncwarp(target):
    y = np.full(64, -1, np.int32)
    source("warp_operations").kernel("syncwarp", target, FLOAT)((1, 1, 1), 64, y)
    np.testing.assert_array_equal(y, [lane // 32 * 32 + 31 - lane % 32 for lane in range(64)])


def test_syncwarp_orders_one_warp_only(target):
    y = np.full(64, -1, np.int32)
    kernel = source("warp_operations").kernel("syncwarp_across", target, FLOAT)
    with pytest.raises(SimtError, match="races in shared memory|no lane of the block has written"):
        kernel((1, 1, 1), 64, y)


def test_dynamic_shared_memory_of_the_size_asked_for(target):
    x, y = np.arange(96, dtype=np.float32), np.full(96, np.nan, np.float32)
    kernel = source("warp_operations").kernel("dynamic_reverse", target, FLOAT)
    kernel((1, 1, 1), 96, x, y, 96, shared=96 * 4)
    np.testing.assert_array_equal(y, x[::-1])
    with pytest.raises(SimtError, match="out of bounds"):
        kernel((1, 1, 1), 96, x, y, 96, shared=95 * 4)


def test_atomics_lose_no_update(target):
    y = np.zeros(7, np.int32)
    source("warp_operations").kernel("histogram", target, FLOAT)((8, 1, 1), 64, y)
    assert y.sum() == 512
    np.testing.assert_array_equal(y, np.bincount(np.arange(512) % 7, minlength=7))


def test_a_deadlock_between_two_warp_operations_is_reported(target):
    y = np.full(32, -1, np.int32)
    kernel = source("warp_operations").kernel("crossed_masks", target, FLOAT)
    with pytest.raises(SimtError, match="not all lanes of the mask take part in"):
        kernel((1, 1, 1), 32, y)
