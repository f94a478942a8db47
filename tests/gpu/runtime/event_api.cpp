// The functions on events.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <set>

#include "context.h"
#include "event.h"
#include "stream.h"

using namespace gpu;

namespace {

std::set<Event *> events;

Event &event_of(cudaEvent_t handle) {
    Event *const event = reinterpret_cast<Event *>(handle);
    if (!events.count(event))
        throw Failure(cudaErrorInvalidResourceHandle, "there is no such event");
    return *event;
}

void create(cudaEvent_t *handle, unsigned flags) {
    Event *const event = new Event;
    event->timed = !(flags & cudaEventDisableTiming);
    events.insert(event);
    *handle = reinterpret_cast<cudaEvent_t>(event);
}

void wait_on_host(Event &event) {
    if (event.capture) throw Failure(cudaErrorCapturedEvent);
    join(host_clock(), event.clock);
}

// Makes a stream's next work come after an event of a capture: the stream joins the capture.
void wait_in_capture(Stream &stream, const Event &event) {
    Capture &capture = *event.capture;
    if (capture.invalid) throw Failure(cudaErrorStreamCaptureInvalidated);
    if (stream.legacy()) {
        capture.invalid = true;
        throw Failure(cudaErrorStreamCaptureImplicit, "cudaStreamWaitEvent on the legacy stream");
    }
    if (stream.capture && stream.capture != event.capture) {
        capture.invalid = stream.capture->invalid = true;
        throw Failure(cudaErrorStreamCaptureMerge);
    }
    if (!stream.capture) stream.tips.clear();
    stream.capture = event.capture;
    capture.streams.insert(&stream);
    for (const size_t tip : event.tips)
        if (!std::count(stream.tips.begin(), stream.tips.end(), tip)) stream.tips.push_back(tip);
}

}  // namespace

extern "C" {

cudaError_t cudaEventCreate(cudaEvent_t *handle) {
    return runtime_call([&] { create(handle, cudaEventDefault); });
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *handle, unsigned flags) {
    return runtime_call([&] { create(handle, flags); });
}

cudaError_t cudaEventDestroy(cudaEvent_t handle) {
    const auto body = [&] {
        Event *const event = &event_of(handle);
        events.erase(event);
        delete event;
    };
    return runtime_call(body, AFTER_FAULT);
}

cudaError_t cudaEventRecord(cudaEvent_t handle, cudaStream_t stream_handle) {
    return runtime_call([&] {
        Event &event = event_of(handle);
        Stream &stream = stream_of(stream_handle);
        if (stream.capture && stream.capture->invalid)
            throw Failure(cudaErrorStreamCaptureInvalidated);
        check_legacy(stream, "cudaEventRecord");
        event.recorded = true;
        event.capture = stream.capture;
        event.tips = stream.tips;
        event.clock = next_clock(stream);
        event.time = std::chrono::steady_clock::now();
    });
}

cudaError_t cudaEventQuery(cudaEvent_t handle) {
    return runtime_call([&] { wait_on_host(event_of(handle)); });
}

cudaError_t cudaEventSynchronize(cudaEvent_t handle) {
    return runtime_call([&] { wait_on_host(event_of(handle)); });
}

cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t first, cudaEvent_t last) {
    return runtime_call([&] {
        const Event &from = event_of(first), &to = event_of(last);
        if (from.capture || to.capture) throw Failure(cudaErrorCapturedEvent);
        for (const Event *event : {&from, &to})
            if (!event->timed || !event->recorded)
                throw Failure(cudaErrorInvalidResourceHandle,
                              event->timed ? "the event was never recorded"
                                           : "the event was made without timing");
        *milliseconds = std::chrono::duration<float, std::milli>(to.time - from.time).count();
    });
}

cudaError_t cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t event_handle, unsigned) {
    return runtime_call([&] {
        Stream &stream = stream_of(handle);
        const Event &event = event_of(event_handle);
        if (event.capture) return wait_in_capture(stream, event);
        if (!event.recorded) return;
        if (stream.capture) {
            stream.capture->invalid = true;
            throw Failure(cudaErrorStreamCaptureIsolation);
        }
        join(stream.clock, event.clock);
    });
}
}
