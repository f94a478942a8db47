// The machine for tests written in Python: ctypes calls these.
#include <string>

#include "machine.h"

namespace {

thread_local std::string message;
thread_local int fault_kind = -1;

// Runs `body`; returns its result, or `otherwise` with the message kept.
template <class R, class F> R caught(R otherwise, F body) {
    message.clear();
    fault_kind = -1;
    try {
        return body();
    } catch (const gpu::Fault &fault) {
        message = fault.what();
        fault_kind = int(fault.kind);
    } catch (const std::exception &error) {
        message = error.what();
    }
    return otherwise;
}

constexpr gpu::Device MODEL = {"machine for tests",
                               9,
                               0,
                               132,
                               2048,
                               32,
                               65536,
                               65536,
                               233472,
                               49152,
                               232448,
                               1024,
                               size_t(80) << 30,
                               50 << 20,
                               1980000,
                               2619000,
                               5120};

}  // namespace

extern "C" {

const char *machine_message() { return message.c_str(); }
int machine_fault_kind() { return fault_kind; }

gpu::Machine *machine_create(unsigned host_threads) {
    return caught<gpu::Machine *>(nullptr, [&] { return new gpu::Machine(MODEL, host_threads); });
}
void machine_destroy(gpu::Machine *machine) { delete machine; }

void *machine_allocate(gpu::Machine *machine, size_t bytes) {
    return machine->memory.allocate(bytes);
}
int machine_free(gpu::Machine *machine, void *pointer) { return machine->memory.free(pointer); }
void machine_wrote(gpu::Machine *machine, void *pointer, size_t bytes) {
    machine->memory.wrote(pointer, bytes);
}

using Handle = std::shared_ptr<gpu::Module>;

Handle *machine_parse(gpu::Machine *machine, const char *ptx) {
    return caught<Handle *>(nullptr, [&] { return new Handle(gpu::Module::parse(*machine, ptx)); });
}
void machine_unload(Handle *module) { delete module; }
const gpu::Function *machine_function(Handle *module, const char *name) {
    return (*module)->function(name);
}
size_t machine_parameters(const gpu::Function *function) { return function->parameters.size(); }
uint32_t machine_parameter_bytes(const gpu::Function *function, size_t i) {
    return function->parameters[i].bytes;
}

// Returns 0, or 1 with a message.
int machine_run(gpu::Machine *machine, const gpu::Function *function, const uint32_t *grid,
                const uint32_t *block, uint32_t shared, const void *const *arguments) {
    return caught<int>(1, [&] {
        gpu::run(*machine, {function,
                            {grid[0], grid[1], grid[2]},
                            {block[0], block[1], block[2]},
                            shared,
                            arguments});
        return 0;
    });
}

}  // extern "C"
