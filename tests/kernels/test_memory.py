"""Large arrays of the `cpu` target: their memory serves the next ones of their size."""

import resource

import numpy as np
import pytest

import kernels
from kernels.runtime.cpu import CpuTarget
from tests.lib.support import normal

LARGE = 2**20  # bytes


@pytest.fixture
def cpu():
    """A target that has kept nothing yet."""
    return CpuTarget()


def test_memory_of_a_large_array_serves_the_next_of_its_size(cpu):
    # A size that is no multiple of a page or of an element's neighbours.
    first = cpu.empty((LARGE // 4 + 3,), np.float32)
    place = cpu.address(first)
    assert place % 64 == 0 and first.flags.c_contiguous and first.flags.writeable
    del first
    assert cpu.address(cpu.empty((LARGE + 8,), np.uint8)) != place
    # The same number of bytes, as another shape and dtype.
    assert cpu.address(cpu.empty((3 + LARGE // 4, 2, 2), np.uint8)) == place


def test_memory_is_not_lent_while_a_view_is_left(cpu):
    first = cpu.empty((LARGE,), np.float32)
    first[...] = 1
    view, place = first[5:10].reshape(5, 1), cpu.address(first)
    del first
    others = [cpu.empty((LARGE,), np.float32) for _ in range(2)]
    for other in others:
        other[...] = 2
    assert (view == 1).all() and place not in map(cpu.address, others)
    del view
    assert cpu.address(cpu.empty((LARGE,), np.float32)) == place


def test_no_more_is_kept_than_128_mib(cpu):
    # Of different sizes, so that none serves another. Their pages were never touched.
    for i in range(100):
        cpu.empty((4 * LARGE + i,), np.uint8)
    kept = [memory.nbytes for memory in cpu._reserve._kept.values()]
    assert 120 * LARGE < sum(kept) <= 128 * LARGE
    assert max(kept) == 4 * LARGE + 99 + 64  # the oldest went first


def test_no_more_than_64_arrays_are_kept(cpu):
    for i in range(100):  # each of another size, and all of them together small
        cpu.empty((LARGE // 4 + i,), np.uint8)
    kept = [memory.nbytes for memory in cpu._reserve._kept.values()]
    assert kept == [LARGE // 4 + i + 64 for i in range(36, 100)]


def test_calls_of_one_shape_touch_no_fresh_pages():
    x = normal(0, 40 * LARGE // 4, dtype=np.float32)  # past what the C library keeps by itself
    kernels.relu(x)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        kernels.relu(x)
    # 40 MiB are 20 huge pages at the least.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 20
