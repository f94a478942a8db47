// The driver's functions on modules and their kernels.
#include "module.h"

#include <algorithm>
#include <fstream>
#include <set>
#include <sstream>

#include "context.h"
#include "occupancy.h"

using namespace gpu;

namespace {

std::set<LoadedModule *> modules;
std::set<Kernel *> kernels;

LoadedModule &module_of(CUmodule handle) {
    LoadedModule *const module = reinterpret_cast<LoadedModule *>(handle);
    if (!modules.count(module))
        throw Failure(cudaErrorInvalidResourceHandle, "there is no such module");
    return *module;
}

// As NVIDIA's assembler does, which a driver gives PTX to: what is declared in a kernel is no part
// of what a launch can opt into.
void check_shared(const Module &module) {
    const uint32_t most = context().machine.device.shared_per_block;
    for (const Function &function : module.functions())
        if (function.static_shared > most)
            throw Failure(cudaErrorInvalidPtx,
                          function.name + ": declares " + std::to_string(function.static_shared) +
                              " bytes of shared memory, expected at most " + std::to_string(most) +
                              "; a launch gives more, as dynamic memory");
}

void load(CUmodule *handle, std::string text) {
    const char ELF[] = "\177ELF";
    if (text.compare(0, 4, ELF) == 0)
        throw Failure(cudaErrorInvalidKernelImage,
                      "the module is machine code (a cubin); the emulated GPU takes PTX: compile "
                      "with CUPY_COMPILE_WITH_PTX=1");
    if (text.find(".version") == std::string::npos)
        throw Failure(cudaErrorInvalidKernelImage, "the module is not PTX: it has no .version");
    std::unique_ptr<LoadedModule> module(new LoadedModule);
    module->ptx = std::move(text);
    try {
        module->machine_module = Module::parse(context().machine, module->ptx);
    } catch (const Error &error) {
        throw Failure(cudaErrorInvalidPtx, error.what());
    }
    check_shared(*module->machine_module);
    modules.insert(module.get());
    *handle = reinterpret_cast<CUmodule>(module.release());
}

int opted_shared(const Kernel &kernel) {
    const Device &device = context().machine.device;
    const int without = int(device.shared_per_block) - int(kernel.function->static_shared);
    return kernel.opted_shared >= 0 ? kernel.opted_shared : without;
}

int attribute(Kernel &kernel, CUfunction_attribute which) {
    const Device &device = context().machine.device;
    switch (which) {
    case CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK:
        return most_threads(kernel);
    case CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES:
        return resources_of(kernel).shared;
    case CU_FUNC_ATTRIBUTE_CONST_SIZE_BYTES:
        return 0;
    case CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES:
        return resources_of(kernel).local;
    case CU_FUNC_ATTRIBUTE_NUM_REGS:
        return resources_of(kernel).registers;
    case CU_FUNC_ATTRIBUTE_PTX_VERSION:
    case CU_FUNC_ATTRIBUTE_BINARY_VERSION:
        return device.major * 10 + device.minor;
    case CU_FUNC_ATTRIBUTE_CACHE_MODE_CA:
        return 0;
    case CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES:
        return opted_shared(kernel);
    case CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT:
        return -1;
    default:
        throw Failure(cudaErrorInvalidValue,
                      "there is no attribute " + std::to_string(which) + " of a kernel");
    }
}

}  // namespace

namespace gpu {

Kernel &kernel_of(CUfunction handle) {
    Kernel *const kernel = reinterpret_cast<Kernel *>(handle);
    if (!kernels.count(kernel))
        throw Failure(cudaErrorInvalidResourceHandle,
                      "there is no such kernel, or its module was unloaded");
    return *kernel;
}

const Resources &resources_of(Kernel &kernel) {
    LoadedModule &module = *kernel.module;
    if (module.resources.empty()) module.resources = assemble(module.ptx, context().machine.device);
    return module.resources.at(kernel.function->name);
}

}  // namespace gpu

extern "C" {

CUresult cuModuleLoadData(CUmodule *handle, const void *image) {
    return driver_call([&] {
        // CuPy gives no length; machine code is not read beyond its mark.
        const char *text = static_cast<const char *>(image);
        load(handle, text);
    });
}

CUresult cuModuleLoad(CUmodule *handle, const char *path) {
    return driver_call([&] {
        std::ifstream file(path, std::ios::binary);
        if (!file) throw Failure(cudaErrorFileNotFound, path);
        std::ostringstream text;
        text << file.rdbuf();
        load(handle, text.str());
    });
}

CUresult cuModuleUnload(CUmodule handle) {
    const auto body = [&] {
        LoadedModule *const module = &module_of(handle);
        for (const auto &kernel : module->kernels) kernels.erase(kernel.get());
        for (const Variable &variable : module->machine_module->variables())
            context().serials.erase(reinterpret_cast<uintptr_t>(variable.address));
        modules.erase(module);
        delete module;
    };
    return driver_call(body, AFTER_FAULT);
}

CUresult cuModuleGetFunction(CUfunction *handle, CUmodule module_handle, const char *name) {
    return driver_call([&] {
        LoadedModule &module = module_of(module_handle);
        const Function *function = module.machine_module->function(name);
        if (!function)
            throw Failure(cudaErrorSymbolNotFound, std::string("the module has no kernel ") + name);
        module.kernels.emplace_back(new Kernel{&module, function});
        kernels.insert(module.kernels.back().get());
        *handle = reinterpret_cast<CUfunction>(module.kernels.back().get());
    });
}

CUresult cuModuleGetGlobal_v2(CUdeviceptr *address, size_t *bytes, CUmodule module_handle,
                              const char *name) {
    return driver_call([&] {
        const Variable *variable = module_of(module_handle).machine_module->variable(name);
        if (!variable)
            throw Failure(cudaErrorSymbolNotFound,
                          std::string("the module has no variable ") + name);
        if (address) *address = reinterpret_cast<CUdeviceptr>(variable->address);
        if (bytes) *bytes = variable->bytes;
    });
}

CUresult cuFuncGetAttribute(int *value, CUfunction_attribute which, CUfunction handle) {
    return driver_call([&] { *value = attribute(kernel_of(handle), which); });
}

CUresult cuFuncSetAttribute(CUfunction handle, CUfunction_attribute which, int value) {
    return driver_call([&] {
        Kernel &kernel = kernel_of(handle);
        if (which == CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT) return;
        if (which != CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES)
            throw Failure(cudaErrorInvalidValue,
                          "attribute " + std::to_string(which) + " cannot be set");
        const Device &device = context().machine.device;
        const int most = int(device.shared_per_block_optin) - int(kernel.function->static_shared);
        if (value < 0 || value > most)
            throw Failure(cudaErrorInvalidValue,
                          kernel.function->name + ": " + std::to_string(value) +
                              " bytes of dynamic shared memory were asked for; a block of the " +
                              device.name + " can have " + std::to_string(most));
        kernel.opted_shared = value;
    });
}

CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, CUfunction handle, int threads,
                                                     size_t shared) {
    return driver_call([&] { *blocks = resident_blocks(kernel_of(handle), threads, shared); });
}

CUresult cuOccupancyMaxPotentialBlockSize(int *grid, int *block, CUfunction handle,
                                          CUoccupancyB2DSize, size_t shared, int limit) {
    return driver_call([&] {
        Kernel &kernel = kernel_of(handle);
        const int most = std::min(most_threads(kernel), limit > 0 ? limit : 1024);
        int best = 0;
        for (int threads = most; threads >= 1; threads = (threads - 1) / 32 * 32) {
            const int blocks = resident_blocks(kernel, threads, shared);
            if (blocks * threads > best) {
                best = blocks * threads;
                *block = threads;
                *grid = blocks * context().machine.device.multiprocessors;
            }
        }
    });
}
}
