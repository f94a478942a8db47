"""Kernels with planted faults, each caught and reported with file, line, block and thread."""

import re
from pathlib import Path

import numpy as np
import pytest

from kernels.runtime import Source
from tests.lib import nvrtc

from . import build, ptx
from .machine_api import Machine, MachineError

DIALECT = '#include "dialect/dialect.cuh"\n'

TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module", params=[1, 3], ids=["1 host thread", "3 host threads"])
def machine(request):
    return Machine(str(build.build().library), request.param)


def text_of(name):
    """Return a file of planted faults, or of the device's own."""
    path = TESTS / "faults" / f"{name}.cu"
    return (path if path.exists() else TESTS / "device" / f"{name}.cu").read_text()


def module(machine, name, text, arch="sm_90"):
    source = Source(f"{name}.cu", text, packaged=False)
    return machine.module(ptx.compiled(nvrtc.specialised(source, "float32"), f"{name}.cu", arch))


def caught(machine, name, kind, grid, threads, *arguments, text=None, kernel=None):
    """Launch, and return the report, which names the kernel, the faulty line and the block."""
    text = text or text_of(name)
    with pytest.raises(MachineError) as fault:
        module(machine, name, text).run(kernel or name, grid, threads, *arguments)
    report = str(fault.value)
    assert fault.value.kind == kind, report
    assert report.startswith(f"{kernel or name}, block ("), report
    lines = [number for number, line in enumerate(text.splitlines(), 1) if "// FAULT" in line]
    if lines:
        assert f"kernels/{name}.cu:{lines[0]}" in report
    return report


@pytest.fixture
def values(machine):
    return lambda count, dtype=np.float32: machine.array(np.arange(count).astype(dtype))


@pytest.fixture
def empty(machine):
    return lambda count: machine.empty(count, np.float32)


# ---- shared memory ------------------------------------------------------------------------------


def test_a_missing_barrier(machine, values, empty):
    report = caught(machine, "missing_barrier", "unwritten", 2, 64, values(128), empty(128))
    assert "of shared memory (offset" in report
    assert "no thread of the block has written" in report


def test_a_missing_barrier_before_shared_memory_is_reused(machine, values, empty):
    report = caught(machine, "late_barrier", "race", 2, 64, values(256), empty(256))
    assert re.search(r"races with thread \(\d+, 0, 0\), which (read|wrote) it at", report)


def test_uninitialised_shared_memory(machine, values, empty):
    arguments = values(64), empty(1), np.int32(50)
    report = caught(machine, "uninitialised_shared", "unwritten", 1, 64, *arguments)
    assert "thread (0, 0, 0): read of" in report and "(offset 200)" in report


def test_a_syncwarp_where_a_syncthreads_is_needed(machine, empty):
    y = machine.empty(64, np.int32)
    report = caught(machine, "warp_operations", "unwritten", 1, 64, y, kernel="syncwarp_across")
    assert "no thread of the block has written" in report


def test_a_missing_wait_for_a_copy(machine, values, empty):
    report = caught(machine, "missing_wait", "early_read", 1, 64, values(64), empty(64))
    assert "its thread has not waited for it" in report


def test_a_copy_to_what_is_still_read(machine, values, empty):
    report = caught(machine, "copy_overtakes", "race", 1, 64, values(64), empty(64))
    # The copying thread finds the reader, or the reader the copy: as the warps come.
    assert re.search(r"races with thread \(\d+, 0, 0\), which (read|wrote) it at", report)


def test_a_copy_of_16_bytes_from_an_address_that_4_divide(machine, values, empty):
    report = caught(machine, "unaligned_copy", "misaligned", 1, 1, values(64), empty(4))
    assert "is no multiple of 16" in report
    text = text_of("unaligned_copy").replace("x + 1", "x + 1, 0")  # PTX excepts no size
    report = caught(machine, "unaligned_copy", "misaligned", 1, 1, values(64), empty(4), text=text)
    assert "is no multiple of 16" in report


# ---- global memory ------------------------------------------------------------------------------


def test_a_read_past_the_end(machine, values, empty):
    arguments = values(10), empty(10), np.int32(10)
    report = caught(machine, "read_past_end", "out_of_bounds", 1, 32, *arguments)
    assert "thread (9, 0, 0): read of 4 bytes" in report
    assert "4 bytes past the end of an array of 40 bytes (parameter 0)" in report


def test_a_write_past_the_end(machine, values, empty):
    arguments = values(40), empty(40), np.int32(40)
    report = caught(machine, "write_past_end", "out_of_bounds", 2, 32, *arguments)
    assert "block (1, 0, 0), thread (8, 0, 0): write of 4 bytes" in report
    assert "4 bytes past the end of an array of 160 bytes (parameter 1)" in report


def test_an_index_that_overflows_past_2_to_the_31_elements(machine):
    """What nobody touches takes no memory."""
    row, width = 2**16 + 1, 2**15
    x, y = machine.empty((row + 1) * width, np.uint8), machine.empty(32, np.uint8)
    arguments = x, y, np.int32(row), np.int32(width)
    report = caught(machine, "index_overflow", "out_of_bounds", 1, 32, *arguments)
    assert "read of 1 bytes" in report and "before the start of an array" in report


def test_memory_that_nobody_has_written(machine, empty):
    text = DIALECT + "KERNEL stale(T *x, T *y) { y[threadIdx.x] = x[threadIdx.x]; }"
    x = empty(64)
    report = caught(machine, "stale", "unwritten", 1, 32, x, empty(64), text=text)
    assert "thread (0, 0, 0): read of 4 bytes at kernels/stale.cu:2" in report
    assert "byte 0 of an array of 256 bytes (parameter 0)" in report


def test_a_pointer_of_the_host(machine, empty):
    text = DIALECT + "KERNEL lost(const T *x, T *y) {\ny[0] = x[0];  // FAULT\n}"
    host = np.zeros(4, np.float32)
    arguments = np.uint64(host.ctypes.data), empty(4)
    report = caught(machine, "lost", "host_pointer", 1, 1, *arguments, text=text)
    assert f"{host.ctypes.data:#x}, no address of the GPU's memory" in report


def test_a_null_pointer(machine, empty):
    text = DIALECT + "KERNEL lost(const T *x, T *y) {\ny[0] = x[0];  // FAULT\n}"
    report = caught(machine, "lost", "out_of_bounds", 1, 1, np.uint64(0), empty(4), text=text)
    assert "a null pointer" in report


def test_the_last_address_of_all(machine, empty):
    text = DIALECT + "KERNEL lost(const T *x, T *y) {\ny[0] = x[-1];  // FAULT\n}"
    caught(machine, "lost", "host_pointer", 1, 1, np.uint64(0), empty(4), text=text)


def test_a_freed_array(machine, values, empty):
    text = DIALECT + "KERNEL late(const T *x, T *y) {\ny[0] = x[0];  // FAULT\n}"
    x = values(4)
    address = np.uint64(x.address)
    del x
    caught(machine, "late", "out_of_bounds", 1, 1, address, empty(4), text=text)


# ---- races between blocks -----------------------------------------------------------------------


def test_a_sum_that_every_block_adds_to(machine, values):
    report = caught(machine, "block_race", "race", 4, 1, values(4), values(1))
    # Which blocks meet is chance where several run at once.
    one, other = re.findall(r"block \((\d), 0, 0\)|another block", report)
    assert one != other


RACES = {
    # Every block writes its own number to one place.
    "overwrite": "y[threadIdx.x] = blockIdx.x;  // FAULT",
    # A block reads what the next one writes.
    "neighbour": """
        y[blockIdx.x * 32 + threadIdx.x] = 1;
        const T next = y[(blockIdx.x + 1) % gridDim.x * 32 + threadIdx.x];  // FAULT
        y[blockIdx.x * 32 + threadIdx.x] = next;
    """,
    # Adds atomically to what another block reads plainly.
    "half_atomic": """
        if (blockIdx.x == 0) y[64] = y[0];
        else atomicAdd(y, T(1));  // FAULT
    """,
    # A block writes its byte of each word and reads another block's, with writes of the third
    # block's byte in between.
    "bytes_of_others": """
        uint8 *word = reinterpret_cast<uint8 *>(y + threadIdx.x);
        if (blockIdx.x == 2) word[3] = word[0];  // FAULT
        else word[blockIdx.x] = 1;
    """,
    # Blocks read a byte each, then one writes the whole word.
    "word_of_bytes": """
        uint8 *word = reinterpret_cast<uint8 *>(y + threadIdx.x);
        if (blockIdx.x < 2) y[64 + threadIdx.x] = word[blockIdx.x];
        else y[threadIdx.x] = 1;  // FAULT
    """,
    # Of a word that blocks read as a whole, one writes a byte.
    "byte_of_words": """
        if (blockIdx.x < 2) y[32 + blockIdx.x * 32 + threadIdx.x] = y[threadIdx.x];
        else reinterpret_cast<uint8 *>(y + threadIdx.x)[3] = 1;  // FAULT
    """,
}


@pytest.mark.parametrize("name", RACES)
def test_a_race_between_blocks(machine, values, name):
    text = f"{DIALECT}KERNEL {name}(T *y) {{\n{RACES[name]}\n}}"
    with pytest.raises(MachineError, match="races with") as fault:
        module(machine, name, text).run(name, 3, 32, values(128))
    assert fault.value.kind == "race"


NO_RACES = {
    # All write the same.
    "same_value": "y[threadIdx.x] = 7;",
    # Neighbouring bytes of one word.
    "bytes": "reinterpret_cast<uint8 *>(y)[blockIdx.x] = blockIdx.x;",
    # The same, read before they are written, and again after the neighbours were.
    "own_bytes": """
        uint8 *bytes = reinterpret_cast<uint8 *>(y);
        for (int i = 0; i < 2; ++i) bytes[blockIdx.x] += 1;
    """,
    "own_halves": """
        uint16 *halves = reinterpret_cast<uint16 *>(y);
        for (int i = 0; i < 2; ++i) halves[blockIdx.x] += 1;
    """,
    "atomic": "atomicAdd(y, T(1));",
    # The last block adds up what the others wrote: "threadFenceReduction" of the CUDA samples.
    "last_block": """
        __shared__ bool last;
        y[1 + blockIdx.x] = blockIdx.x;
        __threadfence();
        if (threadIdx.x == 0)
            last = atomicAdd(reinterpret_cast<uint32 *>(y), 1u) == gridDim.x - 1;
        __syncthreads();
        if (last && threadIdx.x == 0)
            for (int i = 0; i < gridDim.x; ++i) y[64] += y[1 + i];
    """,
}


@pytest.mark.parametrize("name", NO_RACES)
def test_what_is_no_race_between_blocks(machine, values, name):
    text = f"{DIALECT}KERNEL {name}(T *y) {{\n{NO_RACES[name]}\n}}"
    y = machine.array(np.zeros(128, np.float32))
    module(machine, name, text).run(name, 3, 1, y)
    if name == "last_block":
        assert y.values[64] == 3


PARTS_OF_WARPS = """KERNEL parts(T *y, int *arrived) {
    __shared__ bool last;
    y[blockIdx.x * blockDim.x + threadIdx.x] = threadIdx.x;
    __threadfence();
    BARRIER
    if (threadIdx.x == 0) last = atomicAdd(arrived, 1) == gridDim.x - 1;
    __syncthreads();
    if (!last) return;
    T sum = 0;
    for (int i = 0; i < gridDim.x; ++i) sum += y[i * blockDim.x + threadIdx.x];  // FAULT
    y[gridDim.x * blockDim.x + threadIdx.x] = sum;
}
"""


def test_a_release_is_of_what_a_barrier_orders_before_it(machine):
    """Each warp has fenced its writes, but the first one tells of all."""
    for barrier in ("__syncthreads();", ""):
        text = DIALECT + PARTS_OF_WARPS.replace("BARRIER", barrier)
        y, arrived = machine.array(np.zeros(256, np.float32)), machine.array(np.zeros(1, np.int32))
        parts = module(machine, "parts", text)
        if barrier:
            parts.run("parts", 3, 64, y, arrived)
            assert (y.values[192:] == 3 * np.arange(64)).all()
        else:
            with pytest.raises(MachineError, match="read of 4 bytes .* races with block"):
                parts.run("parts", 3, 64, y, arrived)


def test_the_same_value_at_the_same_instant_is_no_race(machine):
    text = DIALECT + "KERNEL same(T *y) { y[threadIdx.x] = 7; }"
    same = module(machine, "same", text)
    for _ in range(500):
        same.run("same", 8, 1024, machine.array(np.zeros(1024, np.float32)))


def test_without_its_fence_the_last_block_races(machine):
    text = NO_RACES["last_block"].replace("__threadfence();", "")
    text = f"{DIALECT}KERNEL last(T *y) {{\n{text}\n}}"
    y = machine.array(np.zeros(128, np.float32))
    with pytest.raises(MachineError, match="races with block"):
        module(machine, "last", text).run("last", 3, 1, y)


# ---- barriers and warp operations ---------------------------------------------------------------


def test_a_barrier_under_a_divergent_branch(machine, values, empty):
    report = caught(machine, "divergent_barrier", "barrier", 1, 64, values(64), empty(64))
    assert "threads 0-31 wait at the barrier" in report
    assert "threads 32-63 have returned" in report


def test_two_barriers_in_two_branches(machine, values, empty):
    report = caught(machine, "two_barriers", "barrier", 1, 4, values(4), empty(4))
    assert "threads 0, 2 wait at the barrier" in report or "threads 1, 3 wait at the" in report


def test_a_shuffle_whose_mask_names_lanes_that_left(machine, values, empty):
    report = caught(machine, "wrong_mask", "barrier", 1, 32, values(32), empty(32))
    assert "threads 0-15 wait in a warp operation" in report
    assert "threads 16-31 will not come" in report


def test_a_shuffle_from_a_lane_outside_the_mask(machine, values, empty):
    report = caught(machine, "shuffle_from_outside", "lanes", 1, 32, values(32), empty(32))
    assert "asks for lane 16, which does not take part" in report


def test_masks_that_wait_for_each_other(machine):
    y = machine.empty(32, np.int32)
    report = caught(machine, "warp_operations", "barrier", 1, 32, y, kernel="crossed_masks")
    assert "that not all lanes of the mask take part in" in report


# ---- after a fault ------------------------------------------------------------------------------


def test_a_fault_does_not_spoil_the_next_launch(machine, values, empty):
    caught(machine, "missing_barrier", "unwritten", 2, 64, values(128), empty(128))
    x, y = values(100), empty(100)
    module(machine, "wrong_stride", text_of("wrong_stride")).run(
        "wrong_stride", 1, 128, x, y, np.int32(100)
    )
    np.testing.assert_array_equal(y.values, x.values)


def test_a_fault_of_a_block_that_another_one_waits_for(machine):
    """The launch ends, though the other block polls for ever."""
    text = """#include "dialect/dialect.cuh"
    KERNEL waits(uint32 *y) {
        if (blockIdx.x == 1) y[1 << 20] = 0;
        else while (atomicAdd(y, 0u) == 0) {}
    }"""
    # One host thread runs the blocks in order: there, the first one must not wait.
    y = machine.array(np.full(4, machine.host_threads == 1, np.uint32))
    report = caught(machine, "waits", "out_of_bounds", 2, 32, y, text=text)
    assert "block (1, 0, 0)" in report
