// The functions on streams, and those of the host that wait.
#include <cuda.h>
#include <cuda_runtime_api.h>

#include "context.h"
#include "stream.h"

using namespace gpu;

namespace {

cudaStream_t handle_of(Stream *stream) { return reinterpret_cast<cudaStream_t>(stream); }

// A function of the host as work. It runs without the lock: it may ask for Python's own, which
// another thread may hold that waits for ours.
Work host_work(std::function<void()> function) {
    Work work;
    work.name = "a host function";
    work.run = [function] {
        context_lock().unlock();
        function();
        context_lock().lock();
        return std::vector<Span>();
    };
    return work;
}

void finish(Stream &stream, const std::string &function) {
    check_not_captured(stream, function);
    check_legacy(stream, function);
    wait_for(stream);
}

}  // namespace

extern "C" {

cudaError_t cudaStreamCreate(cudaStream_t *handle) {
    return runtime_call([&] { *handle = handle_of(create_stream(cudaStreamDefault, 0)); });
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *handle, unsigned flags) {
    return runtime_call([&] { *handle = handle_of(create_stream(flags, 0)); });
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t *handle, unsigned flags, int priority) {
    return runtime_call([&] { *handle = handle_of(create_stream(flags, priority)); });
}

cudaError_t cudaStreamGetFlags(cudaStream_t handle, unsigned *flags) {
    return runtime_call([&] { *flags = stream_of(handle).flags; });
}

cudaError_t cudaStreamGetPriority(cudaStream_t handle, int *priority) {
    return runtime_call([&] { *priority = stream_of(handle).priority; });
}

cudaError_t cudaStreamDestroy(cudaStream_t handle) {
    return runtime_call([&] { destroy_stream(stream_of(handle)); }, AFTER_FAULT);
}

cudaError_t cudaStreamSynchronize(cudaStream_t handle) {
    return runtime_call([&] { finish(stream_of(handle), "cudaStreamSynchronize"); });
}

// All work is done when it is enqueued, so whoever asks hears that it is.
cudaError_t cudaStreamQuery(cudaStream_t handle) {
    return runtime_call([&] { finish(stream_of(handle), "cudaStreamQuery"); });
}

cudaError_t cudaDeviceSynchronize() {
    return runtime_call([] {
        check_no_capture("cudaDeviceSynchronize");
        join(host_clock(), all_work());
    });
}

cudaError_t cudaStreamAddCallback(cudaStream_t handle, cudaStreamCallback_t callback, void *data,
                                  unsigned) {
    return runtime_call([&] {
        Stream &stream = stream_of(handle);
        check_not_captured(stream, "cudaStreamAddCallback");
        enqueue(stream, host_work([=] { callback(handle, cudaSuccess, data); }));
    });
}

cudaError_t cudaLaunchHostFunc(cudaStream_t handle, cudaHostFn_t function, void *data) {
    return runtime_call([&] { enqueue(stream_of(handle), host_work([=] { function(data); })); });
}

CUresult cuStreamGetCtx(CUstream handle, CUcontext *current) {
    return driver_call([&] {
        stream_of(handle);
        *current = reinterpret_cast<CUcontext>(&context());
    });
}
}
