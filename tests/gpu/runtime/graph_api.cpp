// The capture of a stream's work into a graph, and what is done with graphs.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdio>
#include <set>

#include "context.h"
#include "stream.h"

using namespace gpu;

namespace {

struct Graph {
    std::vector<Node> nodes;  // each after those that it comes after
};

// A graph that can be launched. Nodes in a row share a timeline: 0 is that of the stream they are
// launched in.
struct Executable {
    std::vector<Node> nodes;
    std::vector<Timeline> timelines;
};

std::set<Graph *> graphs;
std::set<Executable *> executables;

template <typename T, typename Handle>
T &find(const std::set<T *> &all, Handle handle, const char *what) {
    T *const found = reinterpret_cast<T *>(handle);
    if (!all.count(found))
        throw Failure(cudaErrorInvalidResourceHandle, std::string("there is no such ") + what);
    return *found;
}

Graph &graph_of(cudaGraph_t handle) { return find(graphs, handle, "graph"); }
Executable &executable_of(cudaGraphExec_t handle) {
    return find(executables, handle, "executable graph");
}

// Whether every node comes before the tips, or is one of them.
bool joined(const std::vector<Node> &nodes, const std::vector<size_t> &tips) {
    std::vector<bool> reached(nodes.size());
    for (const size_t tip : tips) reached[tip] = true;
    for (size_t n = nodes.size(); n-- > 0;)
        if (reached[n])
            for (const size_t before : nodes[n].after) reached[before] = true;
    return std::all_of(reached.begin(), reached.end(), [](bool it) { return it; });
}

std::vector<Timeline> timelines_of(const std::vector<Node> &nodes) {
    std::vector<Timeline> timelines;
    std::vector<bool> continued(nodes.size());
    bool begun = false;
    for (const Node &node : nodes) {
        Timeline timeline = 0;
        const auto free = std::find_if(node.after.begin(), node.after.end(),
                                       [&](size_t before) { return !continued[before]; });
        if (free != node.after.end()) {
            timeline = timelines[*free];
            continued[*free] = true;
        } else if (begun) {
            timeline = new_timeline();
        }
        begun = true;
        timelines.push_back(timeline);
    }
    return timelines;
}

// Runs every node after those it comes after, and all after what the stream was given before.
void launch(const Executable &graph, Stream &stream) {
    const Clock start = next_clock(stream);
    Clock end = start;
    std::vector<Clock> clocks;
    for (size_t n = 0; n < graph.nodes.size(); n++) {
        Clock clock = start;
        for (const size_t before : graph.nodes[n].after) join(clock, clocks[before]);
        const Timeline timeline = graph.timelines[n] ? graph.timelines[n] : stream.timeline;
        // Earlier work of the timeline may be that of another branch, which this does not wait for.
        clock[timeline] = end[timeline];
        perform(graph.nodes[n].work, timeline, clock);
        join(end, clock);
        clocks.push_back(std::move(clock));
    }
    stream.clock = end;
}

// Makes a graph's nodes part of a capture, after what was captured before.
void inline_into(Stream &stream, const Executable &graph) {
    std::vector<Node> &nodes = stream.capture->nodes;
    const size_t first = nodes.size();
    std::set<size_t> tips;
    for (const Node &node : graph.nodes) {
        Node copy = node;
        if (copy.after.empty()) {
            copy.after = stream.tips;
        } else {
            for (size_t &before : copy.after) tips.erase(before += first);
        }
        tips.insert(nodes.size());
        nodes.push_back(std::move(copy));
    }
    if (!tips.empty()) stream.tips.assign(tips.begin(), tips.end());
}

void end_capture(Stream &stream, cudaGraph_t *handle) {
    *handle = nullptr;
    const std::shared_ptr<Capture> capture = stream.capture;
    if (!capture) throw Failure(cudaErrorIllegalState, "the stream is not being captured");
    if (capture->origin != &stream) {
        capture->invalid = true;
        throw Failure(cudaErrorStreamCaptureUnmatched);
    }
    if (capture->mode != cudaStreamCaptureModeRelaxed &&
        capture->thread != std::this_thread::get_id())
        throw Failure(cudaErrorStreamCaptureWrongThread);
    const std::vector<size_t> tips = stream.tips;
    for (Stream *taken : capture->streams) {
        taken->capture.reset();
        taken->tips.clear();
    }
    if (capture->invalid) throw Failure(cudaErrorStreamCaptureInvalidated);
    capture->invalid = true;  // for events that were recorded in it
    if (!joined(capture->nodes, tips)) throw Failure(cudaErrorStreamCaptureUnjoined);
    Graph *const graph = new Graph{std::move(capture->nodes)};
    graphs.insert(graph);
    *handle = reinterpret_cast<cudaGraph_t>(graph);
}

}  // namespace

extern "C" {

cudaError_t cudaStreamBeginCapture(cudaStream_t handle, cudaStreamCaptureMode mode) {
    return runtime_call([&] {
        Stream &stream = stream_of(handle);
        if (stream.legacy())
            throw Failure(cudaErrorStreamCaptureUnsupported,
                          "the legacy stream cannot be captured");
        if (stream.capture) throw Failure(cudaErrorIllegalState, "the stream is captured already");
        stream.capture = std::make_shared<Capture>();
        stream.capture->streams = {&stream};
        stream.capture->origin = &stream;
        stream.capture->mode = mode;
        stream.capture->thread = std::this_thread::get_id();
        stream.tips.clear();
    });
}

cudaError_t cudaStreamEndCapture(cudaStream_t handle, cudaGraph_t *graph) {
    return runtime_call([&] { end_capture(stream_of(handle), graph); });
}

cudaError_t cudaStreamIsCapturing(cudaStream_t handle, cudaStreamCaptureStatus *status) {
    return runtime_call([&] {
        const Stream &stream = stream_of(handle);
        if (stream.legacy())
            for (const Stream *other : all_streams())
                if (other->capture && other->blocking())
                    throw Failure(cudaErrorStreamCaptureImplicit, "cudaStreamIsCapturing");
        *status = !stream.capture           ? cudaStreamCaptureStatusNone
                  : stream.capture->invalid ? cudaStreamCaptureStatusInvalidated
                                            : cudaStreamCaptureStatusActive;
    });
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *handle, cudaGraph_t graph_handle,
                                 unsigned long long) {
    return runtime_call([&] {
        const Graph &graph = graph_of(graph_handle);
        Executable *const made = new Executable{graph.nodes, timelines_of(graph.nodes)};
        executables.insert(made);
        *handle = reinterpret_cast<cudaGraphExec_t>(made);
    });
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t handle, cudaStream_t stream_handle) {
    return runtime_call([&] {
        const Executable &graph = executable_of(handle);
        Stream &stream = stream_of(stream_handle);
        if (stream.capture) {
            if (stream.capture->invalid) throw Failure(cudaErrorStreamCaptureInvalidated);
            return inline_into(stream, graph);
        }
        check_runnable(stream, "a launch of a graph");
        for (const Node &node : graph.nodes) check_alive(node.work);
        launch(graph, stream);
    });
}

cudaError_t cudaGraphUpload(cudaGraphExec_t handle, cudaStream_t stream) {
    return runtime_call([&] {
        executable_of(handle);
        stream_of(stream);
    });
}

cudaError_t cudaGraphDestroy(cudaGraph_t handle) {
    const auto body = [&] {
        Graph *const graph = &graph_of(handle);
        graphs.erase(graph);
        delete graph;
    };
    return runtime_call(body, AFTER_FAULT);
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t handle) {
    const auto body = [&] {
        Executable *const graph = &executable_of(handle);
        executables.erase(graph);
        delete graph;
    };
    return runtime_call(body, AFTER_FAULT);
}

cudaError_t cudaGraphDebugDotPrint(cudaGraph_t handle, const char *path, unsigned) {
    return runtime_call([&] {
        const Graph &graph = graph_of(handle);
        std::FILE *const file = std::fopen(path, "w");
        if (!file) throw Failure(cudaErrorInvalidValue, std::string(path) + " cannot be written");
        std::fputs("digraph dot {\n", file);
        for (size_t n = 0; n < graph.nodes.size(); n++) {
            std::fprintf(file, "node_%zu [label=\"%s\"]\n", n, graph.nodes[n].work.name.c_str());
            for (const size_t before : graph.nodes[n].after)
                std::fprintf(file, "node_%zu -> node_%zu\n", before, n);
        }
        std::fputs("}\n", file);
        std::fclose(file);
    });
}
}
