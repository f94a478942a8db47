#include "flat.h"

#include <algorithm>

#include "error.h"

namespace gpu {
namespace {

// Instructions that all lanes of the warp, or of a mask, run together: a guard of one is a branch
// around it.
bool is_collective(const std::string &opcode) {
    static const char *const names[] = {
        "bar",      "barrier",  "shfl", "vote", "match", "redux", "mma",       "call",
        "ldmatrix", "stmatrix", "exit", "ret",  "trap",  "brx",   "nanosleep", "movmatrix"};
    return std::any_of(std::begin(names), std::end(names),
                       [&](const char *name) { return opcode == name; });
}

bool is_barrier_reduction(const Statement &s) {
    return (s.opcode == "bar" || s.opcode == "barrier") &&
           std::count(s.modifiers.begin(), s.modifiers.end(), "red");
}

class Flattener {
  public:
    explicit Flattener(const Syntax &syntax) : syntax_(syntax) {}

    Flat flatten(const FunctionSyntax &kernel) {
        add(kernel, "", "", Place());
        Statement end;  // so that every label precedes a statement
        end.opcode = end.text = "ret";
        flat_.statements.push_back(end);
        return std::move(flat_);
    }

  private:
    // Adds a function's statements. The names of a called one get a suffix; its `ret` becomes a
    // branch to the label `after`. `called_at` is its call's place, if it has no lines of its own.
    void add(const FunctionSyntax &function, const std::string &suffix, const std::string &after,
             Place called_at) {
        if (std::count(open_.begin(), open_.end(), &function))
            throw Error("function " + function.name + " calls itself: recursion is not supported");
        open_.push_back(&function);
        for (const auto &[name, type] : function.registers) flat_.registers[name + suffix] = type;
        declare(function.variables, suffix);
        if (!after.empty()) {
            declare(function.parameters, suffix);
            declare(function.results, suffix);
        }
        for (const auto &[name, labels] : function.targets)
            for (const std::string &label : labels)
                flat_.targets[name + suffix].push_back(label + suffix);
        const Names names{function, suffix};
        size_t next = 0;
        std::multimap<size_t, std::string> labels;
        for (const auto &[label, at] : function.labels) labels.emplace(at, label);
        for (const Statement &statement : function.statements) {
            place_labels(labels, next++, suffix);
            add(statement, names, after, called_at);
        }
        place_labels(labels, next, suffix);
        open_.pop_back();
    }

    void declare(const std::vector<Declaration> &variables, const std::string &suffix) {
        for (Declaration d : variables) {
            if (d.space == Space::parameter) d.space = Space::local;
            if (d.space != Space::shared) d.name += suffix;  // shared: one for all calls
            flat_.variables.push_back(std::move(d));
        }
    }

    void place_labels(const std::multimap<size_t, std::string> &labels, size_t at,
                      const std::string &suffix) {
        const auto [begin, end] = labels.equal_range(at);
        for (auto i = begin; i != end; ++i)
            flat_.labels[i->second + suffix] = uint32_t(flat_.statements.size());
    }

    struct Names {
        const FunctionSyntax &function;
        const std::string &suffix;

        bool own(const std::string &name) const {
            const auto named = [&](const Declaration &d) {
                return d.name == name && d.space != Space::shared;
            };
            const auto any = [&](const std::vector<Declaration> &list) {
                return std::any_of(list.begin(), list.end(), named);
            };
            return function.registers.count(name) || function.labels.count(name) ||
                   function.targets.count(name) || any(function.variables) ||
                   any(function.parameters) || any(function.results);
        }
        std::string full(const std::string &name) const { return own(name) ? name + suffix : name; }
        void rename(Operand &operand) const {
            operand.text = full(operand.text);
            for (Operand &part : operand.parts) rename(part);
        }
    };

    void add(Statement s, const Names &names, const std::string &after, Place called_at) {
        if (!names.suffix.empty()) {
            for (Operand &operand : s.operands) names.rename(operand);
            if (!s.guard.empty()) s.guard = names.full(s.guard);
        }
        if (s.place.line == 0) s.place = called_at;
        if (!after.empty()) {
            // A called function's parameters are variables of its own.
            if (s.opcode == "ret") {
                s.opcode = s.text = "bra";
                s.modifiers.clear();
                s.operands = {label(after)};
            }
        }
        if (!s.guard.empty() && is_collective(s.opcode)) {
            Statement around = s;
            const std::string past = "past'" + std::to_string(++count_);
            around.opcode = around.text = "bra";
            around.guard_negated = !s.guard_negated;
            around.modifiers.clear();
            around.operands = {label(past)};
            flat_.statements.push_back(std::move(around));
            s.guard.clear();
            add_unguarded(std::move(s));
            flat_.labels[past] = uint32_t(flat_.statements.size());
        } else {
            add_unguarded(std::move(s));
        }
    }

    void add_unguarded(Statement s) {
        if (s.opcode == "call") return call(s);
        flat_.statements.push_back(s);
        if (!is_barrier_reduction(s)) return;
        s.opcode = "barrier result";  // once all threads have voted
        flat_.statements.push_back(std::move(s));
    }

    static Operand label(const std::string &name) {
        Operand operand;
        operand.kind = Operand::name;
        operand.text = name;
        return operand;
    }

    // call.uni (results), function, (arguments);
    void call(const Statement &s) {
        std::vector<std::string> results, arguments;
        std::string callee;
        for (const Operand &operand : s.operands) {
            if (operand.kind == Operand::list)
                for (const Operand &part : operand.parts)
                    (callee.empty() ? results : arguments).push_back(part.text);
            else if (callee.empty())
                callee = operand.text;
        }
        const auto found =
            std::find_if(syntax_.functions.begin(), syntax_.functions.end(),
                         [&](const FunctionSyntax &f) { return f.name == callee && f.defined; });
        if (found == syntax_.functions.end())
            throw Error("PTX line " + std::to_string(s.ptx_line) + ": " + s.text + ": function " +
                        callee + " is not defined in this module");
        const std::string suffix = "@" + std::to_string(++count_);
        copy_parameters(s, arguments, found->parameters, suffix, true);
        const std::string after = "after" + suffix;
        add(*found, suffix, after, s.place);
        flat_.labels[after] = uint32_t(flat_.statements.size());
        copy_parameters(s, results, found->results, suffix, false);
    }

    // Copies between the caller's parameter variables and the callee's.
    void copy_parameters(const Statement &call, const std::vector<std::string> &callers,
                         const std::vector<Declaration> &callees, const std::string &suffix,
                         bool in) {
        if (callers.size() != callees.size())
            throw Error("PTX line " + std::to_string(call.ptx_line) + ": " + call.text + ": " +
                        std::to_string(callers.size()) + " parameters where the function has " +
                        std::to_string(callees.size()));
        for (size_t i = 0; i < callers.size(); ++i) {
            Statement copy = call;
            copy.opcode = copy.text = "copy parameter";
            Operand to = label(callees[i].name + suffix), from = label(callers[i]);
            if (!in) std::swap(to, from);
            to.bits = callees[i].bytes;
            copy.operands = {to, from};
            copy.modifiers.clear();
            flat_.statements.push_back(std::move(copy));
        }
    }

    const Syntax &syntax_;
    Flat flat_;
    std::vector<const FunctionSyntax *> open_;
    int count_ = 0;
};

}  // namespace

Flat flattened(const Syntax &syntax, const FunctionSyntax &kernel) {
    return Flattener(syntax).flatten(kernel);
}

}  // namespace gpu
