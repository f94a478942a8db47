// Modules: text to functions and variables.
#include <cstring>

#include "compile.h"
#include "machine.h"

namespace gpu {
namespace {

uint64_t address(const Variable &v) { return reinterpret_cast<uint64_t>(v.address); }

}  // namespace

std::shared_ptr<Module> Module::parse(Machine &machine, std::string_view text) {
    const Syntax syntax = parse_ptx(text);
    std::shared_ptr<Module> module(new Module(machine));
    ModuleScope scope;
    std::vector<const Declaration *> declared;
    for (const Declaration &d : syntax.variables) {
        if (d.space == Space::shared) {
            scope.shared[d.name] = &d;
            continue;
        }
        if (d.external)
            throw Error("the variable " + d.name +
                        " is declared .extern, and no other module has it");
        Variable v{d.name, machine.memory.allocate(d.bytes, d.name), size_t(d.bytes)};
        if (!v.address) throw Error("no memory is left for the variable " + d.name);
        module->variables_.push_back(v);
        declared.push_back(&d);
        scope.addresses[d.name] = address(v);
    }
    for (size_t i = 0; i < declared.size(); ++i) {
        const Variable &v = module->variables_[i];
        const Declaration &d = *declared[i];
        // Variables without initial values are zeros, as fresh memory is.
        memset(v.address, 0, v.bytes);
        if (!d.initial.empty()) memcpy(v.address, d.initial.data(), v.bytes);
        for (const Declaration::Pointer &p : d.pointers) {
            const auto target = scope.addresses.find(p.name);
            if (target == scope.addresses.end())
                throw Error("the variable " + d.name + " points to " + p.name +
                            ", which is no variable of the module");
            const uint64_t value = target->second + p.added;
            memcpy(static_cast<char *>(v.address) + p.offset, &value, sizeof value);
        }
        machine.memory.wrote(v.address, v.bytes);
    }
    for (const FunctionSyntax &f : syntax.functions) {
        if (!f.entry || !f.defined) continue;
        Function function;
        function.name = f.name;
        compile(syntax, f, scope, function);
        module->functions_.push_back(std::move(function));
    }
    return module;
}

Module::~Module() {
    for (const Variable &v : variables_) machine_.memory.free(v.address);
}

const Function *Module::function(std::string_view name) const {
    for (const Function &f : functions_)
        if (f.name == name) return &f;
    return nullptr;
}

const Variable *Module::variable(std::string_view name) const {
    for (const Variable &v : variables_)
        if (v.name == name) return &v;
    return nullptr;
}

}  // namespace gpu
