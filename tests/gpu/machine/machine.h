// The emulated GPU's machine: device memory, PTX modules, and launches executed on the host.
//
// Its users (the CUDA runtime and driver that CuPy calls) need this header alone.
//
//   Machine machine(device);                        one GPU of a named model
//   void *x = machine.memory.allocate(bytes);       a device array, at a real host address
//   std::shared_ptr<Module> module = Module::parse(machine, ptx_text);
//   run(machine, {module->function("add"), {grid}, {block}, shared_bytes, arguments});
//
// Nothing here prints, exits or keeps state outside the Machine. Text that cannot run throws Error;
// a fault of the kernel throws Fault, after which the memory is as the launch left it.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "device.h"
#include "error.h"
#include "memory.h"

namespace gpu {

struct Dim3 {
    uint32_t x = 1, y = 1, z = 1;
    uint64_t count() const { return uint64_t(x) * y * z; }
};

// One GPU: its limits, its memory, and how many host threads run its blocks.
struct Machine {
    explicit Machine(const Device &model, unsigned host_threads = 0);  // 0: one per host core

    Device device;
    Memory memory;
    unsigned host_threads;
    uint32_t launches = 0;  // so far
    bool watched = false;   // record what launches of a single block touch, too
    bool opposite = false;  // blocks, warps and lanes run one by one, the last one first
    uint32_t stamp = 0;     // of the last launch's accesses in the shadow
};

// A parameter of a kernel, at its place among the parameters' bytes.
struct Parameter { uint32_t offset, bytes, alignment; };

struct Counters;  // counters.h
struct Program;   // compiled PTX; internal to the machine

// A kernel (`.entry`) of a module.
struct Function {
    std::string name;
    std::vector<Parameter> parameters;
    uint32_t parameter_bytes = 0;
    uint32_t static_shared = 0;    // bytes per block
    uint32_t local_bytes = 0;      // bytes per thread, the functions it calls included
    uint32_t maximum_threads = 0;  // by .maxntid; 0 where the text sets no limit
    uint32_t minimum_blocks = 0;   // by .minnctapersm; 0 where the text has none
    std::shared_ptr<const Program> program;
};

// A variable at module scope, in device memory.
struct Variable {
    std::string name;
    void *address = nullptr;
    size_t bytes = 0;
};

class Module {
  public:
    // Throws Error: one sentence with the instruction and its line. `name` is what reports call it.
    static std::shared_ptr<Module> parse(Machine &machine, std::string_view ptx);
    ~Module();  // frees the variables
    Module(const Module &) = delete;
    Module &operator=(const Module &) = delete;

    const Function *function(std::string_view name) const;  // nullptr if there is none
    const Variable *variable(std::string_view name) const;  // nullptr if there is none
    const std::vector<Function> &functions() const { return functions_; }
    const std::vector<Variable> &variables() const { return variables_; }

  private:
    explicit Module(Machine &machine) : machine_(machine) {}

    Machine &machine_;
    std::vector<Function> functions_;
    std::vector<Variable> variables_;
};

struct Launch {
    const Function *function;
    Dim3 grid, block;
    uint32_t dynamic_shared = 0;             // bytes per block
    const void *const *arguments = nullptr;  // one pointer per parameter, to the argument's bytes
    Counters *counters = nullptr;            // where to count what it does, if anywhere
};

// Runs a launch to its end. Its limits (threads, shared memory, ...) are the caller's to check.
// One launch at a time: launches and other uses of the machine's memory must not overlap.
void run(Machine &machine, const Launch &launch);

// Bytes of an array, from `begin` to `end`, that a launch touched.
struct Span {
    uint64_t begin, end;
    bool write;
};

// What the last launch touched of an array; of one block alone if the machine is watched. Accesses
// no further apart than `gap` bytes are one span.
std::vector<Span> touched(Machine &machine, const Array &array, uint64_t gap);

}  // namespace gpu
