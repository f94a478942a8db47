// The one GPU of the process, and how every function of CUDA's enters it.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "../machine/machine.h"
#include "errors.h"

namespace gpu {

// The value of uninitialised bytes, which the host may copy: NaN, as floats.
constexpr int UNWRITTEN = 0xff;

// Memory of the host that the GPU may use: page-locked by CUDA, or registered with it.
struct HostMemory {
    size_t bytes;
    bool allocated;  // by cudaHostAlloc, and so an array of the machine
};

struct Context {
    Context(const Device &model, unsigned host_threads) : machine(model, host_threads) {}

    Machine machine;
    std::map<uintptr_t, HostMemory> host;   // by address
    std::map<uintptr_t, uint64_t> serials;  // of device arrays, by address: no two are alike
    std::map<uintptr_t, size_t> managed;    // bytes of managed memory, by address

    // The fault after which every call fails, as CUDA's do: cudaSuccess if there was none.
    cudaError_t fault = cudaSuccess;
    std::string report;
};

// The context, made at first use of the model that $EMULATED_GPU names (an H100 otherwise). Its
// lock must be held by whoever uses it.
Context &context();
std::mutex &context_lock();

// The error code of a kernel's fault.
cudaError_t fault_code(FaultKind kind);
// Every call fails from now on, until fresh_device().
void record_fault(cudaError_t code, const std::string &report);

// What this thread's next cudaGetLastError() says.
void set_last_error(cudaError_t code);
// Whether this thread has a current context: from its first call of the runtime on, as in CUDA.
bool &has_context();

// Runs the body of a function under the lock and returns its code: that of a fault before it, of
// what the body throws, or success.
template <typename Body> cudaError_t enter(Body body, bool after_fault = false) {
    const std::lock_guard<std::mutex> locked(context_lock());
    try {
        Context &it = context();
        if (it.fault != cudaSuccess && !after_fault) throw Failure(it.fault, it.report);
        body();
        return cudaSuccess;
    } catch (const Failure &failure) {
        explain(failure.code, failure.what());
        return failure.code;
    } catch (const Fault &fault) {
        record_fault(fault_code(fault.kind), fault.what());
        explain(context().fault, fault.what());
        return context().fault;
    }
}

// A function of the runtime: its error is also what cudaGetLastError() says.
template <typename Body> cudaError_t runtime_call(Body body, bool after_fault = false) {
    has_context() = true;
    const cudaError_t code = enter(body, after_fault);
    if (code != cudaSuccess) set_last_error(code);
    return code;
}

// A function of the driver.
template <typename Body> CUresult driver_call(Body body, bool after_fault = false) {
    return static_cast<CUresult>(enter(body, after_fault));
}

// For functions that end something: they work after a fault, too, for they are called by
// destructors, which can tell nobody that they failed.
constexpr bool AFTER_FAULT = true;

}  // namespace gpu
