#include "context.h"

#include <cstdlib>
#include <cuda_runtime_api.h>

#include "models.h"

namespace gpu {
namespace {

thread_local cudaError_t last_error = cudaSuccess;

const Device &chosen_model() {
    const char *name = std::getenv("EMULATED_GPU");
    const Device *found = find_model(name && *name ? name : "h100");
    if (!found)
        throw Failure(cudaErrorInvalidDevice, std::string("EMULATED_GPU: got ") + name +
                                                  ", expected h100, a100, rtx4090 or t4");
    return *found;
}

// 0: one per core.
unsigned chosen_threads() {
    const char *given = std::getenv("EMULATED_GPU_THREADS");
    if (!given) return 0;
    char *end;
    const long number = std::strtol(given, &end, 10);
    if (number < 1 || *end)
        throw Failure(cudaErrorInvalidValue, std::string("EMULATED_GPU_THREADS: got ") + given +
                                                 ", expected a number of threads");
    return unsigned(number);
}

}  // namespace

Context &context() {
    // Never destroyed: Python frees arrays until the very end.
    static Context *const made = new Context(chosen_model(), chosen_threads());
    return *made;
}

std::mutex &context_lock() {
    static std::mutex *const lock = new std::mutex;
    return *lock;
}

cudaError_t fault_code(FaultKind kind) {
    switch (kind) {
    case FaultKind::out_of_bounds:
    case FaultKind::host_pointer:
        return cudaErrorIllegalAddress;
    case FaultKind::misaligned:
        return cudaErrorMisalignedAddress;
    default:
        return cudaErrorLaunchFailure;
    }
}

void record_fault(cudaError_t code, const std::string &report) {
    context().fault = code;
    context().report = report;
}

void set_last_error(cudaError_t code) { last_error = code; }

bool &has_context() {
    thread_local bool has = false;
    return has;
}

}  // namespace gpu

using namespace gpu;

extern "C" {

cudaError_t cudaGetLastError() {
    const cudaError_t code = last_error;
    last_error = cudaSuccess;
    return code;
}

cudaError_t cudaPeekAtLastError() { return last_error; }
}
