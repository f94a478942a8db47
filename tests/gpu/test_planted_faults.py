"""Kernels with planted faults, launched as the package launches its own: what their user is told.

A call raises CUDA's error, which a real GPU would give too, and after it comes one sentence with
the kernel, the block, the thread, the file and the line. test_machine_faults.py has more of them.
"""

import re
from pathlib import Path

import numpy as np
import pytest

from kernels import runtime
from kernels.runtime import KernelError, Source
from kernels.runtime.arena import Arena
from kernels.runtime.recording import Recording

from . import device
from .codes import raises

TESTS = Path(__file__).parents[1]
FAULTS = TESTS / "faults"
FLOAT = np.dtype(np.float32)


@pytest.fixture
def target(emulated):
    return runtime.cuda_target()


def kernel(name, target):
    source = Source(f"{name}.cu", (FAULTS / f"{name}.cu").read_text(), packaged=False)
    return source.kernel(name, target, FLOAT)


def line(name):
    """Return the faulty line as reports name it."""
    lines = (FAULTS / f"{name}.cu").read_text().splitlines()
    number = next(number for number, text in enumerate(lines, 1) if "// FAULT" in text)
    return f"kernels/{name}.cu:{number}"


#: By kernel: CUDA's error, blocks, threads, elements of x and y, further arguments, what is said.
REPORTED = {
    "missing_barrier": ("LAUNCH_FAILED", 2, 64, 128, 128, (), "reads what no thread"),
    "late_barrier": ("LAUNCH_FAILED", 2, 64, 256, 256, (), "races with thread"),
    "divergent_barrier": ("LAUNCH_FAILED", 1, 64, 64, 64, (), "while threads 32-63 have returned"),
    "two_barriers": ("LAUNCH_FAILED", 1, 4, 4, 4, (), "wait at the one at"),
    "read_past_end": ("ILLEGAL_ADDRESS", 1, 32, 10, 10, (10,), "thread (9, 0, 0): read of 4 bytes"),
    "write_past_end": ("ILLEGAL_ADDRESS", 2, 32, 40, 40, (40,), "4 bytes past the end of an array"),
    "wrong_mask": ("LAUNCH_FAILED", 1, 32, 32, 32, (), "threads 16-31 will not come"),
    "shuffle_from_outside": ("LAUNCH_FAILED", 1, 32, 32, 32, (), "which does not take part"),
    "uninitialised_shared": ("LAUNCH_FAILED", 1, 64, 64, 1, (50,), "reads what no thread"),
    "missing_wait": ("LAUNCH_FAILED", 1, 64, 64, 64, (), "its thread has not waited for it"),
    "unaligned_copy": ("MISALIGNED_ADDRESS", 1, 1, 64, 4, (), "is no multiple of 16"),
}


@pytest.mark.parametrize("name", REPORTED)
def test_a_fault_is_told_with_its_place(emulated, target, name):
    error, blocks, threads, length, results, others, said = REPORTED[name]
    x = target.array(np.arange(length, dtype=FLOAT))
    arguments = (x, target.empty((results,), FLOAT), *others)
    with raises(emulated, f"CUDA_ERROR_{error}", f"{name}, block (", said, line(name)):
        kernel(name, target)((blocks, 1, 1), threads, *arguments)


GATHERED = """#include "dialect/dialect.cuh"
KERNEL gathered(const T *__restrict__ x, const int *__restrict__ at, T *__restrict__ y) {
    y[threadIdx.x] = x[at[threadIdx.x]];
}
"""


def test_a_fault_of_a_replay_is_told_with_its_place(emulated, target):
    """A graph runs the kernel on what its arrays hold by then."""
    source = Source("gathered.cu", GATHERED, packaged=False)
    x, at = target.array(np.arange(32, dtype=FLOAT)), target.array(np.arange(32, dtype=np.int32))
    with Recording(Arena(target), [x, at]) as recording:
        y = target.empty((32,), FLOAT)
        source.kernel("gathered", target, FLOAT)((1, 1, 1), 32, x, at, y)
    recording.replay()
    at[5] = 32
    place = "thread (5, 0, 0): read of 4 bytes at kernels/gathered.cu:3"
    with raises(emulated, "cudaErrorIllegalAddress", "gathered, block (0, 0, 0)", place):
        recording.replay()


def test_more_shared_memory_than_a_block_has(target):
    x = target.array(np.arange(64, dtype=FLOAT))
    said = "too_much_shared: declares 65536 bytes of shared memory, expected at most 49152"
    with pytest.raises(KernelError, match=said):
        kernel("too_much_shared", target)((1, 1, 1), 64, x, x)


def test_a_loop_that_strides_wrongly_leaves_elements_unwritten(target):
    """Within bounds and without a race: an output that nobody wrote is NaN, and gives it away."""
    x, y = target.array(np.arange(1000, dtype=FLOAT)), target.empty((1000,), FLOAT)
    kernel("wrong_stride", target)((2, 1, 1), 64, x, y, x.size)
    assert np.isnan(y.get()).any()
    with pytest.raises(AssertionError):
        np.testing.assert_array_equal(y.get(), x.get())


def test_after_a_fault_every_call_fails_until_the_device_is_fresh(emulated, target):
    x, y = target.array(np.arange(128, dtype=FLOAT)), target.empty((128,), FLOAT)
    for name in ("missing_barrier", "wrong_stride"):
        others = (x.size,) if name == "wrong_stride" else ()
        with raises(emulated, "CUDA_ERROR_LAUNCH_FAILED", "missing_barrier, block ("):
            kernel(name, target)((2, 1, 1), 64, x, y, *others)
    device.fresh()
    kernel("wrong_stride", target)((1, 1, 1), 128, x, y, x.size)
    np.testing.assert_array_equal(y.get(), x.get())


def test_every_planted_fault_has_a_test():
    """Here, or among the tests of what the compiler makes of a kernel."""
    tests = "".join(path.read_text() for path in TESTS.glob("**/test_*.py"))
    for path in FAULTS.glob("*.cu"):
        assert re.search(rf'"{path.stem}(\.cu)?"', tests), path
