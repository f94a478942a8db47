// Streams, the work they are given, and the capture of that work into graphs.
#pragma once

#include <driver_types.h>

#include <functional>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "order.h"

namespace gpu {

enum class MemoryKind { pageable, pinned, managed, device };
MemoryKind memory_kind(const void *pointer);

// A device array that a work was given: where it begins, and which of all that ever began there.
struct Held { uint64_t begin, serial, bytes; };

// What a stream is given to do.
struct Work {
    std::string name;                        // for reports: "kernel add", "a copy of 4 bytes"
    std::function<std::vector<Span>()> run;  // returns what it touched
    std::vector<Held> arrays;                // that must still be there when it runs
    std::function<bool()> runnable;          // false once the kernel's module is gone
};

// A work in a graph, after others of it.
struct Node {
    Work work;
    std::vector<size_t> after;
};

struct Stream;

// The work that streams were given since cudaStreamBeginCapture().
struct Capture {
    std::vector<Node> nodes;
    std::set<Stream *> streams;
    Stream *origin;
    cudaStreamCaptureMode mode;
    std::thread::id thread;
    bool invalid = false;
};

struct Stream {
    unsigned flags = cudaStreamDefault;
    int priority = 0;
    Timeline timeline = new_timeline();
    Clock clock;
    std::shared_ptr<Capture> capture;
    std::vector<size_t> tips;  // the nodes that the next one comes after

    bool blocking() const { return flags == cudaStreamDefault; }
    bool legacy() const;
};

// The stream of a handle. Throws Failure if there is none.
Stream &stream_of(cudaStream_t handle);
Stream &legacy_stream();
// Every stream there is.
const std::set<Stream *> &all_streams();
Stream *create_stream(unsigned flags, int priority);
// Throws Failure for a default stream.
void destroy_stream(Stream &stream);
// Ends the capture of every stream.
void abandon_captures();

// Makes a work part of the stream's capture, or runs it after all that the stream was given.
void enqueue(Stream &stream, Work work);
// The host waits for all that a stream was given.
void wait_for(Stream &stream);

// These throw Failure, and invalidate the captures concerned, where a call is not allowed:
// on a stream that is captured;
void check_not_captured(Stream &stream, const std::string &function);
// on the legacy stream, while a stream is captured that it would wait for;
void check_legacy(Stream &stream, const std::string &function);
// while any stream is captured;
void check_no_capture(const std::string &function);
// while a capture is not relaxed, since the call may start work of its own.
void check_unsafe_call(const std::string &function);

// Work outside of a capture of this thread: it would run once, now, and no launch of the graph
// would repeat it. CUDA allows that in a relaxed capture; nobody wants it.
void check_runnable(Stream &stream, const std::string &what);
// What a graph's work was captured with, arrays and the kernel's module, is still there.
void check_alive(const Work &work);

// The clock of what a stream is given next.
Clock next_clock(Stream &stream);
// Runs a work of a timeline, after what `clock` knows; the clock then knows it, too.
void perform(const Work &work, Timeline timeline, Clock &clock);

}  // namespace gpu
