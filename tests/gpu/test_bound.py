"""Bounds, against hand calculations."""

from __future__ import annotations

import pytest

from tests.gpu.bound import LAUNCH, bound, bound_of_all, residence
from tests.gpu.gpus import GPUS

H100, A100, T4 = (GPUS[name] for name in ("h100", "a100", "t4"))
FIGURES = (
    "fma32 add32 mul32 lasting double_operations half_operations special_operations "
    "global_load_sectors uncached_sectors global_store_sectors atomic_sectors shared_least "
    "global_load_requests"
).split()


def launch_of(blocks=1320, read=0, written=0, tensor=(), longest_warp=0, resident=8, **figures):
    """Return a launch whose blocks all do the same."""
    whole = dict.fromkeys(FIGURES, 0) | figures
    return {
        "grid": [blocks, 1, 1],
        "block": [256, 1, 1],
        "resident": resident,
        "longest_warp": longest_warp,
        "bytes": {"read": read, "written": written, "touched": read + written},
        "all": whole,
        "least": {name: count / blocks for name, count in whole.items()},
        "tensor": dict(tensor),
    }


def seconds(launch, gpu=H100, cold=False):
    found = bound(launch, gpu, cold)
    return found.by, found.seconds


def test_multiply_adds_take_the_float32_pipe():
    count = 10_000_000
    # 128 lanes a clock: 4 warp instructions, as many as are issued.
    by, least = seconds(launch_of(fma32=count, lasting=count))
    assert by in ("float32", "issue")
    assert least == pytest.approx(count / 4 / 132 / 1.98e9)
    by, least = seconds(launch_of(1080, fma32=count, lasting=count), A100)
    assert (by, least) == ("float32", pytest.approx(count / 2 / 108 / 1.41e9))


def test_an_add_and_a_mul_may_become_one():
    together = bound(launch_of(add32=10**7, mul32=10**7), H100)
    alone = bound(launch_of(add32=10**7), H100)
    assert together == alone


def test_the_busiest_multiprocessor_counts():
    # 133 blocks on 132 multiprocessors: one has two.
    count = 133 * 10**6
    assert seconds(launch_of(133, fma32=count))[1] == pytest.approx(2 * 10**6 / 4 / 1.98e9)


def test_dram_and_l2():
    n = 2**26  # bytes read, and bytes written
    add = launch_of(
        read=2 * n, written=n, global_load_sectors=2 * n // 32, global_store_sectors=n // 32
    )
    held = 50 * 2**20
    assert seconds(add, cold=True) == ("dram", pytest.approx((2 * n + n - held) / 3.352e12))
    assert bound(add, H100).parts["dram"] == pytest.approx((3 * n - 2 * held) / 3.352e12)
    small = launch_of(read=2**20, global_load_sectors=2**15)
    assert bound(small, H100).parts["dram"] == 0
    assert bound(small, H100, cold=True).parts["dram"] == pytest.approx(2**20 / 3.352e12)
    assert bound(small, H100).parts["l2"] == pytest.approx(2**20 / 5120 / 1.98e9)


def test_shared_memory_serves_a_wavefront_a_clock():
    by, least = seconds(launch_of(shared_least=132 * 10**6))
    assert (by, least) == ("shared", pytest.approx(10**6 / 1.98e9))


@pytest.mark.parametrize(
    ("name", "gpu", "rate"),
    [
        ("m16n8k16.f32.bf16.bf16.f32", H100, 2048),
        ("m16n8k16.f32.f16.f16.f32", A100, 1024),
        ("m16n8k16.f16.f16.f16.f16", T4, 512),
        ("m16n8k8.f32.tf32.tf32.f32", A100, 512),
    ],
)
def test_tensor_cores(name, gpu, rate):
    products = 10**7
    k = 8 if "k8" in name else 16
    by, least = seconds(launch_of(tensor={name: products}), gpu)
    expected = products * 16 * 8 * k / rate / gpu.multiprocessors / gpu.clock
    assert (by, least) == ("tensor", pytest.approx(expected))


def test_a_small_launch_is_bound_by_its_start_or_its_longest_warp():
    assert seconds(launch_of(1, longest_warp=10)) == ("launch", LAUNCH)
    assert seconds(launch_of(1, longest_warp=10**4)) == (
        "longest warp",
        pytest.approx(10**4 / 1.98e9),
    )


def test_launches_one_after_the_other():
    one, two = launch_of(shared_least=132 * 10**6), launch_of(longest_warp=10)
    total = {"launches": [one, two, two], "bytes": {"read": 0, "written": 0}}
    found = bound_of_all(total, H100)
    assert found.by == "shared"
    assert found.seconds == pytest.approx(10**6 / 1.98e9 + 2 * LAUNCH)
    # DRAM's bytes are those of all together.
    total["bytes"] = {"read": 10**10, "written": 0}
    found = bound_of_all(total, H100)
    assert (found.by, found.seconds) == ("dram", pytest.approx((10**10 - 50 * 2**20) / 3.352e12))


def test_where_blocks_lie():
    found = residence(launch_of(blocks=132 * 12, resident=8), H100)
    assert found == (1.0, 1.5, 0.5)
    assert residence(launch_of(blocks=132 * 8, resident=4), H100) == (0.5, 2.0, 0.0)
