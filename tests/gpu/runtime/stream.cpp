#include "stream.h"

#include <cuda_runtime_api.h>

#include <algorithm>

#include "context.h"

namespace gpu {
namespace {

constexpr int HIGHEST_PRIORITY = -5;

// Streams by cudaStreamCreate(); the legacy one and those of threads live as long as the process.
std::set<Stream *> &streams() {
    static std::set<Stream *> all;
    return all;
}

Stream &thread_stream() {
    thread_local Stream *const mine = [] {
        Stream *made = new Stream;
        streams().insert(made);
        return made;
    }();
    return *mine;
}

void invalidate(const std::shared_ptr<Capture> &capture) {
    if (capture) capture->invalid = true;
}

// Every capture under way, once.
std::set<std::shared_ptr<Capture>> captures() {
    std::set<std::shared_ptr<Capture>> found;
    for (Stream *stream : streams())
        if (stream->capture) found.insert(stream->capture);
    return found;
}

}  // namespace

bool Stream::legacy() const { return this == &legacy_stream(); }

Stream &legacy_stream() {
    static Stream *const made = [] {
        Stream *stream = new Stream;
        streams().insert(stream);
        return stream;
    }();
    return *made;
}

const std::set<Stream *> &all_streams() { return streams(); }

Stream &stream_of(cudaStream_t handle) {
    if (!handle || handle == cudaStreamLegacy) return legacy_stream();
    if (handle == cudaStreamPerThread) return thread_stream();
    Stream *const stream = reinterpret_cast<Stream *>(handle);
    if (!streams().count(stream))
        throw Failure(cudaErrorInvalidResourceHandle, "there is no such stream");
    return *stream;
}

Clock next_clock(Stream &stream) {
    Clock clock = stream.clock;
    join(clock, host_clock());
    // The legacy stream waits for every blocking one, and each of these for it.
    if (stream.legacy()) {
        for (Stream *other : streams())
            if (other->blocking()) join(clock, other->clock);
    } else if (stream.blocking()) {
        join(clock, legacy_stream().clock);
    }
    return clock;
}

void perform(const Work &work, Timeline timeline, Clock &clock) {
    all_work()[timeline] = ++clock[timeline];
    check_order(work.name, timeline, clock, work.run());
}

void enqueue(Stream &stream, Work work) {
    if (stream.capture) {
        if (stream.capture->invalid) throw Failure(cudaErrorStreamCaptureInvalidated);
        stream.capture->nodes.push_back({std::move(work), stream.tips});
        stream.tips = {stream.capture->nodes.size() - 1};
        return;
    }
    check_runnable(stream, work.name);
    stream.clock = next_clock(stream);
    perform(work, stream.timeline, stream.clock);
}

void wait_for(Stream &stream) { join(host_clock(), next_clock(stream)); }

void check_runnable(Stream &stream, const std::string &what) {
    check_legacy(stream, what);
    for (const auto &capture : captures())
        if (capture->thread == std::this_thread::get_id()) {
            capture->invalid = true;
            throw Failure(cudaErrorStreamCaptureUnsupported,
                          what + " is given to a stream that the capture under way in this thread "
                                 "does not take in: no launch of its graph would repeat it");
        }
}

void check_alive(const Work &work) {
    if (work.runnable && !work.runnable())
        throw Failure(cudaErrorInvalidResourceHandle, work.name + ": its module was unloaded");
    for (const Held &held : work.arrays) {
        const auto found = context().serials.find(held.begin);
        if (found == context().serials.end() || found->second != held.serial)
            throw Fault(FaultKind::out_of_bounds, work.name + " was captured with an array of " +
                                                      std::to_string(held.bytes) +
                                                      " bytes that has been freed since");
    }
}

void check_not_captured(Stream &stream, const std::string &function) {
    if (!stream.capture) return;
    if (stream.capture->invalid) throw Failure(cudaErrorStreamCaptureInvalidated);
    invalidate(stream.capture);
    throw Failure(cudaErrorStreamCaptureUnsupported, function);
}

void check_legacy(Stream &stream, const std::string &function) {
    if (!stream.legacy()) return;
    for (const auto &capture : captures())
        for (const Stream *other : capture->streams)
            if (other->blocking()) {
                capture->invalid = true;
                throw Failure(cudaErrorStreamCaptureImplicit, function + " on the legacy stream");
            }
}

void check_no_capture(const std::string &function) {
    const auto found = captures();
    for (const auto &capture : found) invalidate(capture);
    if (!found.empty()) throw Failure(cudaErrorStreamCaptureUnsupported, function);
}

void check_unsafe_call(const std::string &function) {
    for (const auto &capture : captures()) {
        const bool mine = capture->thread == std::this_thread::get_id();
        if (capture->mode == cudaStreamCaptureModeGlobal ||
            (capture->mode == cudaStreamCaptureModeThreadLocal && mine)) {
            capture->invalid = true;
            throw Failure(cudaErrorStreamCaptureUnsupported,
                          function + " in a capture that is not relaxed");
        }
    }
}

Stream *create_stream(unsigned flags, int priority) {
    if (flags != cudaStreamDefault && flags != cudaStreamNonBlocking)
        throw Failure(cudaErrorInvalidValue, "stream flags: got " + std::to_string(flags) +
                                                 ", expected default or non-blocking");
    Stream *const stream = new Stream;
    stream->flags = flags;
    stream->priority = std::clamp(priority, HIGHEST_PRIORITY, 0);
    streams().insert(stream);
    return stream;
}

void destroy_stream(Stream &stream) {
    if (&stream == &legacy_stream() || &stream == &thread_stream())
        throw Failure(cudaErrorInvalidResourceHandle, "a default stream cannot be destroyed");
    if (stream.capture) {
        invalidate(stream.capture);
        stream.capture->streams.erase(&stream);
    }
    if (stream.blocking()) join(legacy_stream().clock, stream.clock);  // which waits for its work
    streams().erase(&stream);
    delete &stream;
}

void abandon_captures() {
    for (Stream *stream : streams()) stream->capture.reset();
}

}  // namespace gpu
