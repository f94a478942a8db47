// Modules that were loaded, and their kernels.
#pragma once

#include <cuda.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "../machine/machine.h"

namespace gpu {

// What the assembler needs for a kernel.
struct Resources {
    int registers = 0;  // of 32 bits, a thread
    int shared = 0;     // bytes per block
    int local = 0;      // bytes per thread
    int spilled = 0;    // bytes that a thread stores and loads
};

struct LoadedModule;

struct Kernel {
    LoadedModule *module;
    const Function *function;
    int opted_shared =
        -1;  // dynamic bytes allowed by cuFuncSetAttribute(), -1 if it was not called
};

struct LoadedModule {
    std::string ptx;
    std::shared_ptr<Module> machine_module;
    std::vector<std::unique_ptr<Kernel>> kernels;  // those that were asked for
    std::map<std::string, Resources> resources;    // filled at first need
};

// The kernel of a handle. Throws Failure if there is none.
Kernel &kernel_of(CUfunction handle);

// What the kernel takes on the device: the module's text is assembled when this is first asked.
const Resources &resources_of(Kernel &kernel);

// What NVIDIA's assembler says of the kernels of a PTX text. Throws Failure where it is not there.
std::map<std::string, Resources> assemble(const std::string &ptx, const Device &device);

}  // namespace gpu
