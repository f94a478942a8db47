"""Kernels with planted faults, each caught by `simt` and reported with kernel, line and lanes."""

import re
from pathlib import Path

import numpy as np
import pytest

from kernels.runtime import simt_target
from kernels.runtime.simt import SimtError, SimtTarget
from kernels.runtime.source import Source

FAULTS = Path(__file__).parent / "faults"


@pytest.fixture(params=["forward", "reverse", "random"])
def target(request):
    target = SimtTarget()
    target.order = request.param
    return target


def kernel(name, target):
    source = Source(f"{name}.cu", (FAULTS / f"{name}.cu").read_text(), packaged=False)
    return source.kernel(name, target, np.dtype(np.float32))


def line_of_fault(name):
    lines = (FAULTS / f"{name}.cu").read_text().splitlines()
    return next(number for number, line in enumerate(lines, 1) if "// FAULT" in line)


def launch_caught(name, target, grid, threads, *arguments):
    """Launch and return the report, which names the kernel, the block and the faulty line."""
    with pytest.raises(SimtError) as caught:
        kernel(name, target)((grid, 1, 1), threads, *arguments)
    report = str(caught.value)
    assert report.startswith(f"{name}, block (")
    line = line_of_fault(name)
    assert re.search(rf"{name}\.cu:{line}\b|line {line}\b", report), report
    return report


def values(count):
    return np.arange(count, dtype=np.float32)


def test_a_missing_barrier(target):
    report = launch_caught("missing_barrier", target, 2, 64, values(128), values(128))
    assert re.search(r"lane \d+: (read|write) of 4 bytes", report)
    assert "no lane of the block has written" in report or "races in shared memory" in report


def test_a_missing_barrier_before_shared_memory_is_reused(target):
    report = launch_caught("late_barrier", target, 2, 64, values(256), values(256))
    assert re.search(r"races in shared memory with lane \d+, which (read|wrote) it at", report)


def test_a_barrier_under_a_divergent_branch(target):
    report = launch_caught("divergent_barrier", target, 1, 64, values(64), values(64))
    assert "lanes 0-31 wait at the barrier" in report
    assert "lanes 32-63 have returned" in report


def test_two_barriers_in_two_branches(target):
    report = launch_caught("two_barriers", target, 1, 4, values(4), values(4))
    assert "lanes 0, 2 wait at the barrier" in report
    assert "lanes 1, 3 wait at the one in line" in report


def test_a_read_past_the_end(target):
    report = launch_caught("read_past_end", target, 1, 32, values(10), values(10), 10)
    assert "lane 9: read of 4 bytes" in report
    assert "4 bytes past the end of `x` (40 bytes)" in report


def test_a_write_past_the_end(target):
    report = launch_caught("write_past_end", target, 2, 32, values(40), values(40), 40)
    assert "block (1, 0, 0), lane 8: write of 4 bytes" in report
    assert "4 bytes past the end of `y` (160 bytes)" in report


def test_a_shuffle_whose_mask_names_lanes_that_left(target):
    report = launch_caught("wrong_mask", target, 1, 32, values(32), values(32))
    assert "lanes 0-15 wait in a warp operation with mask 0xffffffff" in report


def test_a_shuffle_from_a_lane_outside_the_mask(target):
    report = launch_caught("shuffle_from_outside", target, 1, 32, values(32), values(32))
    assert re.search(r"lane \d+ asks in a shuffle for lane \d+, which is not in the mask", report)


def test_uninitialised_shared_memory(target):
    report = launch_caught("uninitialised_shared", target, 1, 64, values(64), values(1), 50)
    assert "read of 4 bytes" in report
    assert "shared memory that no lane of the block has written" in report


def test_a_missing_wait_for_a_copy(target):
    report = launch_caught("missing_wait", target, 1, 64, values(64), values(64))
    assert "read of 4 bytes" in report
    assert "is on its way to: its lane has not waited for it" in report


def test_a_copy_to_what_is_still_read(target):
    with pytest.raises(SimtError, match="copy_overtakes.* races in shared memory"):
        kernel("copy_overtakes", target)((1, 1, 1), 64, values(64), values(64))


def test_a_copy_of_16_bytes_from_an_address_that_4_divide(target):
    report = launch_caught("unaligned_copy", target, 1, 1, values(64), values(4))
    assert "asynchronous copy of 16 bytes" in report and "not aligned" in report


def test_more_shared_memory_than_a_block_has(target):
    report = launch_caught("too_much_shared", target, 1, 64, values(64), values(64))
    assert "more than 48 KiB of shared memory" in report


def test_an_index_that_overflows_past_2_to_the_31_elements(target, tmp_path):
    """In a sparse file: what nobody touches takes neither memory nor disk."""
    row, width = 2**16 + 1, 2**15
    x = np.memmap(tmp_path / "sparse", np.uint8, mode="w+", shape=(row + 1) * width)
    report = launch_caught("index_overflow", target, 1, 32, x, np.zeros(32, np.uint8), row, width)
    assert "read of 1 bytes" in report
    assert "outside every array of the launch" in report


def test_float_atomics_differ_with_the_order_of_lanes():
    """No order is wrong, so the fault shows only where several orders are compared."""
    x = np.random.default_rng(0).standard_normal(3000).astype(np.float32)
    sums = set()
    for order in ("forward", "reverse", "random"):
        target = SimtTarget()
        target.order = order
        y = np.zeros(1, np.float32)
        kernel("float_atomic", target)((4, 1, 1), 64, x, y, x.size)
        assert abs(y[0] - x.sum(dtype=np.float64)) < 1e-3
        sums.add(y.tobytes())
    assert len(sums) > 1


def test_a_loop_that_strides_wrongly_leaves_elements_unwritten(target):
    """Within bounds and without a race: the poisoned output gives it away."""
    x, y = values(1000), np.full(1000, np.nan, np.float32)
    kernel("wrong_stride", target)((2, 1, 1), 64, x, y, x.size)
    assert np.isnan(y).any()
    with pytest.raises(AssertionError):
        np.testing.assert_array_equal(y, x)


def test_every_planted_fault_has_a_test():
    """Here, or among the tests of what the compiler makes of a kernel."""
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    for path in FAULTS.glob("*.cu"):
        assert f'"{path.stem}"' in tests or f'"{path.name}"' in tests


def test_a_fault_does_not_spoil_the_next_launch():
    target = simt_target()
    launch_caught("missing_barrier", target, 2, 64, values(128), values(128))
    x, y = values(100), np.full(100, np.nan, np.float32)
    kernel("wrong_stride", target)((1, 1, 1), 128, x, y, x.size)
    np.testing.assert_array_equal(y, x)
