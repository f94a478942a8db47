// PTX text as a tree: variables and functions with their instructions, as written.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "types.h"

namespace gpu {

enum class Space : uint8_t { generic, global, constant, shared, local, parameter };

// One operand. Registers of inner scopes have names of their own: `%temp` becomes `%temp'2`.
struct Operand {
    enum Kind : uint8_t {
        name,
        integer,
        float32,
        float64,
        address,
        vector,
        list,
        sink
    } kind = sink;
    std::string text;            // name: a register, label, variable or function; address: its base
    uint64_t bits = 0;           // the number's bits; address: the offset in bytes
    bool negated = false;        // !p
    std::vector<Operand> parts;  // vector {a, b}, list (a, b); and the p of a|p
};

// Where a line of source is: a file's index in Syntax::files, and its line. Of a function that was
// inlined, also where that was.
struct Place {
    uint32_t file = 0, line = 0;
    std::shared_ptr<const Place> inlined_at;
};

struct Statement {
    std::string guard;  // the predicate's name, empty without one
    bool guard_negated = false;
    std::string text;                    // the opcode as written: "add.s32"
    std::string opcode;                  // its first word: "add"
    std::vector<std::string> modifiers;  // the others
    std::vector<Operand> operands;
    uint32_t ptx_line = 0;
    Place place;
};

// A variable, a parameter, or an array of them.
struct Declaration {
    std::string name;
    Space space = Space::global;
    Type type = Type::b8;
    uint32_t alignment = 1;
    uint64_t bytes = 0;
    bool external = false;
    std::vector<uint8_t> initial;  // empty: zeros
    // Where `initial` holds another variable's address: (offset, its name, added to it).
    struct Pointer {
        uint64_t offset;
        std::string name;
        uint64_t added;
    };
    std::vector<Pointer> pointers;
};

struct FunctionSyntax {
    std::string name;
    bool entry = false;
    bool defined = false;
    std::vector<Declaration> results, parameters;
    std::map<std::string, Type> registers;
    std::vector<Declaration> variables;  // .shared, .local and .param of its body
    std::vector<Statement> statements;
    std::map<std::string, size_t> labels;  // the statement that each one precedes
    std::map<std::string, std::vector<std::string>> targets;  // .branchtargets
    uint32_t maximum_threads = 0, minimum_blocks = 0;
    uint32_t ptx_line = 0;
};

struct Syntax {
    std::string target;  // "sm_90"
    std::vector<Declaration> variables;
    std::vector<FunctionSyntax> functions;
    std::map<uint32_t, std::string> files;  // of .loc, by their number
};

// Throws Error with the line.
Syntax parse_ptx(std::string_view text);

}  // namespace gpu
