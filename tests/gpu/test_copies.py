"""Copies, memsets and the bounds of arrays; what the device says of pointers."""

import resource
from pathlib import Path

import numpy as np
import pytest

from tests.gpu.codes import raises


@pytest.fixture
def runtime(cupy):
    return cupy.cuda.runtime


def test_rows_are_copied_by_their_pitches(cupy, runtime):
    source = np.arange(12, dtype=np.uint8).reshape(3, 4)
    target = cupy.zeros((3, 6), np.uint8)
    kind = runtime.memcpyHostToDevice
    runtime.memcpy2D(target.data.ptr + 1, 6, source.ctypes.data, 4, 2, 3, kind)
    expected = np.zeros((3, 6), np.uint8)
    expected[:, 1:3] = source[:, :2]
    assert (cupy.asnumpy(target) == expected).all()


def test_a_copy_beyond_an_array_is_refused(cupy, runtime, x):
    values = np.zeros(11, np.float32)
    for to, source, kind in (
        (x.data.ptr, values.ctypes.data, runtime.memcpyHostToDevice),
        (values.ctypes.data, x.data.ptr, runtime.memcpyDeviceToHost),
    ):
        with raises(cupy, "cudaErrorInvalidValue"):
            runtime.memcpy(to, source, 2**24, kind)


def test_bounds_are_those_of_the_array_to_the_byte(emulated, x):
    runtime = emulated.cuda.runtime
    with raises(emulated, "cudaErrorInvalidValue", "memset of 41 bytes", "the array of 40 bytes"):
        runtime.memset(x.data.ptr, 0, 41)
    with raises(emulated, "cudaErrorInvalidValue", "of which it begins at byte 36"):
        runtime.memset(x.data.ptr + 36, 0, 5)


def test_an_array_that_was_freed_takes_no_copy(emulated):
    runtime = emulated.cuda.runtime
    address = runtime.malloc(16)
    runtime.free(address)
    with raises(emulated, "cudaErrorInvalidValue", "not in any array"):
        runtime.memset(address, 0, 16)
    with raises(emulated, "cudaErrorInvalidValue"):
        runtime.free(address)


def test_the_ends_of_a_copy_must_be_what_its_kind_says(cupy, runtime, x):
    values = np.zeros(10, np.float32)
    with raises(cupy, "cudaErrorInvalidValue"):
        runtime.memcpy(values.ctypes.data, x.data.ptr, 40, runtime.memcpyHostToDevice)


def test_pointers_know_whose_they_are(cupy, runtime, x):
    pinned = cupy.cuda.alloc_pinned_memory(16)
    values = np.zeros(4, np.float32)
    device, host, pageable = (
        runtime.pointerGetAttributes(address)
        for address in (x.data.ptr + 4, pinned.ptr, values.ctypes.data)
    )
    assert (device.type, device.device) == (runtime.memoryTypeDevice, 0)
    assert (host.type, host.hostPointer) == (runtime.memoryTypeHost, pinned.ptr)
    assert pageable.type == runtime.memoryTypeUnregistered


def test_memory_runs_out(cupy, runtime):
    free, total = runtime.memGetInfo()
    assert 0 < free <= total
    with pytest.raises(cupy.cuda.memory.OutOfMemoryError):
        cupy.empty(2 * total, np.uint8)
    with raises(cupy, "cudaErrorMemoryAllocation"):
        runtime.malloc(2 * total)


def test_what_was_freed_can_be_had_again(emulated):
    runtime = emulated.cuda.runtime
    before = runtime.memGetInfo()[0]
    addresses = [runtime.malloc(1000) for _ in range(100)]
    assert runtime.memGetInfo()[0] == before - 100_000
    for address in addresses:
        runtime.free(address)
    assert runtime.memGetInfo()[0] == before


def test_the_notes_on_freed_arrays_take_no_memory(emulated):
    """Neither does what was noted of their bytes one by one, which takes most."""

    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    def add_one():
        array = emulated.zeros(2**20, np.uint8)
        array += 1

    add_one()
    before = resident()
    for _ in range(8):
        add_one()
    assert resident() < before + 2 * 2**20


def test_functions_that_are_not_emulated_name_themselves(emulated):
    with raises(emulated, "cudaErrorNotSupported", "cudaMallocAsync is not emulated"):
        emulated.cuda.runtime.mallocAsync(16, 0)


def test_the_error_of_a_call_is_told_once(cupy, runtime):
    with raises(cupy, "cudaErrorInvalidResourceHandle"):
        runtime.streamSynchronize(12345)
    runtime.deviceSynchronize()
