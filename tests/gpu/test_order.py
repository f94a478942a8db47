"""Work in several streams: what orders it, and the report where nothing does."""

import numpy as np
import pytest

from tests.gpu import device
from tests.gpu.codes import raises

RACE = "with nothing that orders the two"


@pytest.fixture
def streams(cupy):
    """Two streams that no other waits for."""
    return [cupy.cuda.Stream(non_blocking=True) for _ in range(2)]


def clear(array, stream):
    array.data.memset_async(0, array.nbytes, stream)


def copy(target, source, stream):
    target.data.copy_from_device_async(source.data, source.nbytes, stream)


@pytest.fixture
def y(x):
    return x + 0


def test_two_writes_in_streams_without_an_order_are_a_race(emulated, streams, x):
    first, second = streams
    emulated.cuda.runtime.deviceSynchronize()
    clear(x, first)
    with raises(emulated, "cudaErrorLaunchFailure", "a memset of 40 bytes writes byte 0", RACE):
        clear(x, second)


def test_a_read_without_an_order_is_a_race_too(emulated, streams, x, y):
    emulated.cuda.runtime.deviceSynchronize()
    clear(x, streams[0])
    with raises(emulated, "cudaErrorLaunchFailure", "reads byte 0", RACE):
        copy(y, x, streams[1])


def test_reads_alone_are_none(emulated, streams, x, y):
    emulated.cuda.runtime.deviceSynchronize()
    z = emulated.zeros_like(x)
    emulated.cuda.runtime.deviceSynchronize()
    copy(y, x, streams[0])
    copy(z, x, streams[1])


def test_other_bytes_of_the_same_array_are_none(emulated, streams, x):
    emulated.cuda.runtime.deviceSynchronize()
    clear(x[:5], streams[0])
    clear(x[5:], streams[1])
    with raises(emulated, "cudaErrorLaunchFailure", "writes byte 20", RACE):
        clear(x[5:6], streams[0])


@pytest.mark.parametrize("order", ["event", "stream", "device", "event on the host", "query"])
def test_what_waits_comes_after(cupy, streams, x, order):
    first, second = streams
    cupy.cuda.runtime.deviceSynchronize()
    clear(x, first)
    if order == "event":
        second.wait_event(first.record())
    elif order == "stream":
        first.synchronize()
    elif order == "device":
        cupy.cuda.runtime.deviceSynchronize()
    elif order == "query":
        while not first.done:
            pass
    else:
        first.record().synchronize()
    clear(x, second)


def test_an_event_orders_what_came_before_it_and_no_more(emulated, streams, x):
    first, second = streams
    emulated.cuda.runtime.deviceSynchronize()
    second.wait_event(first.record())
    clear(x, first)
    with raises(emulated, "cudaErrorLaunchFailure", RACE):
        clear(x, second)


def test_the_legacy_stream_waits_for_blocking_streams_and_they_for_it(cupy, x):
    blocking, legacy = cupy.cuda.Stream(), cupy.cuda.Stream.null
    clear(x, blocking)
    clear(x, legacy)
    clear(x, blocking)


def test_the_legacy_stream_does_not_wait_for_the_others(emulated, streams, x):
    emulated.cuda.runtime.deviceSynchronize()
    clear(x, streams[0])
    with raises(emulated, "cudaErrorLaunchFailure", RACE):
        clear(x, emulated.cuda.Stream.null)


def test_a_kernel_is_work_like_any_other(emulated, streams, x, double):
    emulated.cuda.runtime.deviceSynchronize()
    double((1,), (32,), (x, np.int32(10)), stream=streams[0])
    with raises(emulated, "CUDA_ERROR_LAUNCH_FAILED", "kernel twice", RACE):
        double((1,), (32,), (x, np.int32(10)), stream=streams[1])


def test_a_graph_in_a_stream_that_nothing_orders_is_a_race(emulated, streams, x, double):
    first, second = streams
    first.begin_capture()
    double((1,), (32,), (x, np.int32(10)), stream=first)
    graph = first.end_capture()
    emulated.cuda.runtime.deviceSynchronize()
    graph.launch(first)
    with raises(emulated, "cudaErrorLaunchFailure", "kernel twice", RACE):
        graph.launch(second)


def test_branches_of_a_graph_are_not_ordered(emulated, streams, x):
    first, second = streams
    begun, done = (emulated.cuda.Event(disable_timing=True) for _ in range(2))
    first.begin_capture()
    begun.record(first)
    second.wait_event(begun)
    clear(x, first)
    clear(x, second)
    done.record(second)
    first.wait_event(done)
    graph = first.end_capture()
    emulated.cuda.runtime.deviceSynchronize()
    with raises(emulated, "cudaErrorLaunchFailure", RACE):
        graph.launch(first)


def test_a_graph_whose_array_is_gone_is_reported(emulated, streams, double):
    x = emulated.zeros(10, np.float32)
    streams[0].begin_capture()
    double((1,), (32,), (x, np.int32(10)), stream=streams[0])
    graph = streams[0].end_capture()
    del x
    report = ("kernel twice was captured with an array of 40 bytes that has been freed since",)
    with raises(emulated, "cudaErrorIllegalAddress", *report):
        graph.launch(streams[0])


def test_after_a_fault_every_call_fails_until_the_device_is_fresh(emulated, streams, x):
    runtime = emulated.cuda.runtime
    runtime.deviceSynchronize()
    clear(x, streams[0])
    with raises(emulated, "cudaErrorLaunchFailure"):
        clear(x, streams[1])
    with raises(emulated, "cudaErrorLaunchFailure", RACE):
        runtime.deviceSynchronize()
    assert RACE in device.fault()
    device.fresh()
    assert device.fault() is None
    runtime.deviceSynchronize()
    assert emulated.asnumpy(x)[0] == 0
