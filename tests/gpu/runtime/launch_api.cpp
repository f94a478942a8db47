// Launches of kernels: the limits of the device, then the machine.
#include <cuda.h>

#include <climits>
#include <cstring>

#include "context.h"
#include "module.h"
#include "occupancy.h"
#include "stream.h"

using namespace gpu;

namespace {

std::string triple(Dim3 d) {
    return "(" + std::to_string(d.x) + ", " + std::to_string(d.y) + ", " + std::to_string(d.z) +
           ")";
}

void check_shape(const std::string &name, Dim3 grid, Dim3 block) {
    constexpr uint32_t GRID_YZ = 65535, BLOCK_Z = 64;
    if (grid.count() == 0 || block.count() == 0)
        throw Failure(cudaErrorInvalidValue, name + ": got an empty launch, of a grid of " +
                                                 triple(grid) + " blocks of " + triple(block) +
                                                 " threads");
    if (grid.x > INT_MAX || grid.y > GRID_YZ || grid.z > GRID_YZ)
        throw Failure(cudaErrorInvalidValue, name + ": got a grid of " + triple(grid) +
                                                 " blocks, expected at most (2147483647, 65535, "
                                                 "65535)");
    if (block.count() > Device::threads_per_block || block.z > BLOCK_Z)
        throw Failure(cudaErrorInvalidValue, name + ": got blocks of " + triple(block) +
                                                 " threads, expected at most 1024 in all and 64 "
                                                 "along z");
}

void check_shared(const Kernel &kernel, uint32_t dynamic) {
    const Function &function = *kernel.function;
    const Device &device = context().machine.device;
    const size_t opted = kernel.opted_shared >= 0
                             ? size_t(kernel.opted_shared)
                             : device.shared_per_block - function.static_shared;
    if (dynamic > opted)
        throw Failure(cudaErrorInvalidValue,
                      function.name + ": got " + std::to_string(dynamic) +
                          " bytes of dynamic shared memory, expected at most " +
                          std::to_string(opted) +
                          (kernel.opted_shared >= 0 ? ", which were opted into"
                                                    : ", as nobody opted into more"));
}

void check_threads(Kernel &kernel, Dim3 block) {
    const Function &function = *kernel.function;
    const uint64_t threads = block.count();
    if (function.maximum_threads && threads > function.maximum_threads)
        throw Failure(cudaErrorLaunchOutOfResources,
                      function.name + ": got blocks of " + std::to_string(threads) +
                          " threads, expected at most the " +
                          std::to_string(function.maximum_threads) + " of its launch bounds");
    // Up to these the 255 registers that a thread can have are there for all.
    constexpr uint64_t ALWAYS = 256;
    if (threads <= ALWAYS) return;
    const int most = most_threads(kernel);
    if (threads > uint64_t(most))
        throw Failure(cudaErrorLaunchOutOfResources,
                      function.name + ": got blocks of " + std::to_string(threads) +
                          " threads of " + std::to_string(resources_of(kernel).registers) +
                          " registers, of which a block can have " + std::to_string(most));
}

// The values of a launch's parameters, kept for as long as it may run.
struct Arguments {
    std::vector<char> bytes;
    std::vector<const void *> pointers;

    Arguments(const Function &function, void **given) : bytes(function.parameter_bytes) {
        for (size_t p = 0; p < function.parameters.size(); p++) {
            const Parameter &parameter = function.parameters[p];
            std::memcpy(bytes.data() + parameter.offset, given[p], parameter.bytes);
            pointers.push_back(bytes.data() + parameter.offset);
        }
    }
    Arguments(const Arguments &) = delete;

    // The arrays that the parameters have addresses of.
    std::vector<Held> arrays() const {
        std::vector<Held> found;
        for (size_t at = 0; at + sizeof(uint64_t) <= bytes.size(); at += sizeof(uint64_t)) {
            uint64_t value;
            std::memcpy(&value, bytes.data() + at, sizeof value);
            const void *const pointer = reinterpret_cast<const void *>(value);
            const Array *array = context().machine.memory.array_at(pointer);
            if (!array) continue;
            found.push_back(
                {array->begin, context().serials[array->begin], array->end - array->begin});
        }
        return found;
    }
};

void launch(CUfunction handle, Dim3 grid, Dim3 block, uint32_t shared, CUstream stream,
            void **given, void **extra) {
    Kernel &kernel = kernel_of(handle);
    const Function &function = *kernel.function;
    if (extra)
        throw Failure(cudaErrorNotSupported,
                      function.name + ": arguments in `extra` are not emulated");
    check_shape(function.name, grid, block);
    check_threads(kernel, block);
    check_shared(kernel, shared);
    const auto arguments = std::make_shared<Arguments>(function, given);
    const std::shared_ptr<Module> module = kernel.module->machine_module;
    const std::weak_ptr<Module> loaded = module;
    Work work;
    work.name = "kernel " + function.name;
    work.arrays = arguments->arrays();
    work.runnable = [loaded] { return !loaded.expired(); };
    work.run = [=, &function, arrays = work.arrays] {
        // Accesses no further apart than this count as one: arrays in one allocation are further.
        constexpr uint64_t GAP = 32;
        Machine &machine = context().machine;
        machine.watched = all_streams().size() > 1;
        run(machine, {&function, grid, block, shared, arguments->pointers.data()});
        std::vector<Span> spans;
        if (!machine.watched) return spans;
        for (const Held &held : arrays) {
            const Array *array = machine.memory.array_at(reinterpret_cast<void *>(held.begin));
            for (const Span &span : touched(machine, *array, GAP)) spans.push_back(span);
        }
        return spans;
    };
    enqueue(stream_of(stream), std::move(work));
}

}  // namespace

extern "C" {

CUresult cuLaunchKernel(CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                        unsigned block_x, unsigned block_y, unsigned block_z, unsigned shared,
                        CUstream stream, void **arguments, void **extra) {
    return driver_call([&] {
        launch(function, {grid_x, grid_y, grid_z}, {block_x, block_y, block_z}, shared, stream,
               arguments, extra);
    });
}
}
