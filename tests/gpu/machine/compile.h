// From a kernel's syntax to a program.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "instruction.h"
#include "machine.h"
#include "syntax.h"

namespace gpu {

// Module-scope variables by name: their addresses, or their declaration in shared memory.
struct ModuleScope {
    std::map<std::string, uint64_t> addresses;
    std::map<std::string, const Declaration *> shared;
};

// Fills in a function's program and sizes. Throws Error.
void compile(const Syntax &syntax, const FunctionSyntax &kernel, const ModuleScope &scope,
             Function &function);

}  // namespace gpu
