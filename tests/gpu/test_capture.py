"""Stream capture: what CUDA forbids meanwhile, with its codes, and what a capture records."""

import numpy as np
import pytest

from tests.gpu.codes import raises


def copy_from_host(cupy, array, values, stream):
    """What CuPy's own copies call where they do not refuse themselves."""
    runtime = cupy.cuda.runtime
    kind = runtime.memcpyHostToDevice
    runtime.memcpyAsync(array.data.ptr, values.ctypes.data, array.nbytes, kind, stream.ptr)


def test_a_graph_repeats_what_was_captured_and_capture_runs_nothing(cupy, stream, x, double):
    stream.begin_capture()
    double((1,), (32,), (x, np.int32(10)))
    graph = stream.end_capture()
    stream.synchronize()
    assert cupy.asnumpy(x)[3] == 3
    graph.launch()
    graph.launch()
    assert cupy.asnumpy(x)[3] == 12


def test_memsets_and_copies_on_the_device_are_recorded(cupy, stream, x):
    y = cupy.empty_like(x)
    stream.begin_capture()
    y.data.copy_from_device_async(x.data, x.nbytes)
    x.data.memset_async(0, x.nbytes)
    graph = stream.end_capture()
    graph.launch()
    assert cupy.asnumpy(y).tolist() == list(range(10))
    assert cupy.asnumpy(x).tolist() == [0] * 10


def test_a_copy_from_pinned_memory_is_recorded_and_reads_it_at_every_launch(cupy, stream, x):
    pinned = cupy.cuda.alloc_pinned_memory(x.nbytes)
    values = np.frombuffer(pinned, np.float32, 10)
    values[:] = 1
    stream.begin_capture()
    copy_from_host(cupy, x, values, stream)
    graph = stream.end_capture()
    values[:] = 5
    graph.launch()
    assert cupy.asnumpy(x).tolist() == [5] * 10


@pytest.mark.parametrize(
    "function", ["streamSynchronize", "streamQuery", "deviceSynchronize"], ids=str
)
def test_nobody_may_wait_for_a_stream_that_is_captured(cupy, stream, function):
    runtime = cupy.cuda.runtime
    arguments = () if function == "deviceSynchronize" else (stream.ptr,)
    stream.begin_capture()
    if function == "streamQuery":  # which CuPy lets return its code
        assert runtime.streamQuery(stream.ptr) == 900
    else:
        with raises(cupy, "cudaErrorStreamCaptureUnsupported"):
            getattr(runtime, function)(*arguments)
    with raises(cupy, "cudaErrorStreamCaptureInvalidated"):
        stream.end_capture()
    assert not stream.is_capturing()


def test_nothing_more_is_recorded_after_a_mistake(cupy, stream, x, double):
    stream.begin_capture()
    with raises(cupy, "cudaErrorStreamCaptureUnsupported"):
        stream.synchronize()
    with raises(cupy, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"):
        double((1,), (32,), (x, np.int32(10)))
    with raises(cupy, "cudaErrorStreamCaptureInvalidated"):
        stream.end_capture()


def test_the_legacy_stream_may_not_be_used_while_a_blocking_one_is_captured(cupy, x):
    blocking = cupy.cuda.Stream()
    blocking.begin_capture()
    with raises(cupy, "cudaErrorStreamCaptureImplicit"):
        x.data.memset_async(0, 4, cupy.cuda.Stream.null)
    with raises(cupy, "cudaErrorStreamCaptureInvalidated"):
        blocking.end_capture()


@pytest.mark.parametrize("mode", ["Global", "ThreadLocal"])
def test_memory_is_had_in_a_relaxed_capture_only(cupy, stream, mode):
    runtime = cupy.cuda.runtime
    stream.begin_capture()
    address = runtime.malloc(4)
    runtime.free(address)
    stream.end_capture()
    stream.begin_capture(getattr(runtime, f"streamCaptureMode{mode}"))
    with raises(cupy, "cudaErrorStreamCaptureUnsupported"):
        runtime.malloc(4)
    with raises(cupy, "cudaErrorStreamCaptureInvalidated"):
        stream.end_capture()


def test_only_streams_of_a_capture_that_began_may_end_it(cupy, stream):
    with raises(cupy, "cudaErrorIllegalState"):
        cupy.cuda.runtime.streamEndCapture(stream.ptr)
    stream.begin_capture()
    with raises(cupy, "cudaErrorIllegalState"):
        cupy.cuda.runtime.streamBeginCapture(stream.ptr)
    stream.end_capture()


def test_a_stream_that_waits_for_an_event_of_a_capture_joins_it(cupy, stream, x, double):
    other = cupy.cuda.Stream(non_blocking=True)
    begun, done = cupy.cuda.Event(disable_timing=True), cupy.cuda.Event(disable_timing=True)
    y = x.copy()
    stream.begin_capture()
    begun.record(stream)
    other.wait_event(begun)
    assert other.is_capturing()
    double((1,), (32,), (x, np.int32(10)))
    double((1,), (32,), (y, np.int32(10)), stream=other)
    done.record(other)
    stream.wait_event(done)
    graph = stream.end_capture()
    assert not other.is_capturing()
    graph.launch()
    assert cupy.asnumpy(x)[3] == cupy.asnumpy(y)[3] == 6


def test_work_that_was_forked_off_must_be_joined(cupy, stream, x, double):
    other = cupy.cuda.Stream(non_blocking=True)
    begun = cupy.cuda.Event(disable_timing=True)
    stream.begin_capture()
    begun.record(stream)
    other.wait_event(begun)
    double((1,), (32,), (x, np.int32(10)), stream=other)
    with raises(cupy, "cudaErrorStreamCaptureUnjoined"):
        stream.end_capture()


def test_a_capture_may_not_wait_for_work_outside_of_it(cupy, stream):
    event = cupy.cuda.Event(disable_timing=True)
    event.record(cupy.cuda.Stream(non_blocking=True))
    stream.begin_capture()
    with raises(cupy, "cudaErrorStreamCaptureIsolation"):
        stream.wait_event(event)
    with raises(cupy, "cudaErrorStreamCaptureInvalidated"):
        stream.end_capture()


def test_an_event_of_a_capture_cannot_be_waited_for(cupy, stream):
    event = cupy.cuda.Event(disable_timing=True)
    stream.begin_capture()
    event.record(stream)
    with raises(cupy, "cudaErrorCapturedEvent"):
        event.synchronize()
    stream.end_capture()


def test_two_captures_cannot_be_merged(cupy, stream):
    other = cupy.cuda.Stream(non_blocking=True)
    event = cupy.cuda.Event(disable_timing=True)
    stream.begin_capture()
    other.begin_capture()
    event.record(other)
    with raises(cupy, "cudaErrorStreamCaptureMerge"):
        stream.wait_event(event)
    for captured in (stream, other):
        with raises(cupy, "cudaErrorStreamCaptureInvalidated"):
            captured.end_capture()


def test_a_copy_from_pageable_memory_is_refused(emulated, stream, x):
    values = np.zeros(10, np.float32)
    stream.begin_capture()
    with raises(emulated, "cudaErrorStreamCaptureUnsupported", "40 bytes from the host"):
        copy_from_host(emulated, x, values, stream)
    with raises(emulated, "cudaErrorStreamCaptureInvalidated"):
        stream.end_capture()


def test_work_that_the_capture_does_not_take_in_is_reported(emulated, stream, x):
    stream.begin_capture()
    with raises(emulated, "cudaErrorStreamCaptureUnsupported", "no launch of its graph would"):
        x.data.memset_async(0, x.nbytes, emulated.cuda.Stream.null)
    with raises(emulated, "cudaErrorStreamCaptureInvalidated"):
        stream.end_capture()
