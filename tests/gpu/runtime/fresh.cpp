// What the tests ask of the device.
#include <algorithm>
#include <cstring>

#include "context.h"
#include "stream.h"

using namespace gpu;

extern "C" {

// The sentence on the fault that makes every call fail, or nullptr.
const char *emulated_fault() {
    const std::lock_guard<std::mutex> locked(context_lock());
    return context().fault == cudaSuccess ? nullptr : context().report.c_str();
}

// Forgets a fault and ends captures that nobody ended: the device is as good as new. Arrays and
// modules stay, for what the program keeps of them.
void emulated_fresh() {
    const std::lock_guard<std::mutex> locked(context_lock());
    context().fault = cudaSuccess;
    context().report.clear();
    abandon_captures();
    join(host_clock(), all_work());
}

// From now on blocks, warps and lanes run one by one, the last one first; or as ever.
void emulated_opposite(int opposite) {
    const std::lock_guard<std::mutex> locked(context_lock());
    context().machine.opposite = opposite != 0;
}

// Makes the bytes of an array uninitialised, and their values as well.
void emulated_forget(void *pointer, size_t bytes) {
    const std::lock_guard<std::mutex> locked(context_lock());
    Memory &memory = context().machine.memory;
    const Array *array = memory.array_at(pointer);
    if (!array) return;
    memory.unwrote(pointer, bytes);
    std::memset(pointer, UNWRITTEN,
                std::min(bytes, array->end - reinterpret_cast<uint64_t>(pointer)));
}
}
