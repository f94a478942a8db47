// An instruction ready to run, and the program that holds it.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "syntax.h"

namespace gpu {

struct Warp;
struct Instruction;

// Runs an instruction for a warp's active lanes and returns the next; nullptr where the warp must
// wait, gives others a turn, or has ended.
using Handler = const Instruction *(*)(Warp &, const Instruction &);

// Two versions of a handler: for a warp whose lanes are all active, and for any.
struct Handlers { Handler full = nullptr, partial = nullptr; };

// Operands name a place among the warp's registers, or among the values common to the block
// (constants, parameters, special registers): Warp::at. Bit 0 tells which, bit 1 negates a
// predicate; the rest is an offset in bytes.
constexpr uint32_t COMMON = 1, NEGATED = 2, NO_OPERAND = 0xfffffffcu;
constexpr uint32_t NARROW = 0xfffffff8u;  // in the place of an operand: the register has 16 bits

struct Instruction {
    Handler run[2] = {};  // with every lane active; with some
    uint32_t d = NO_OPERAND, a = NO_OPERAND, b = NO_OPERAND, c = NO_OPERAND;
    const uint32_t *more = nullptr;  // further operands
    int64_t immediate = 0, offset_b = 0;
    const Instruction *target = nullptr, *join = nullptr;  // of a branch
    uint32_t guard = NO_OPERAND;
    uint32_t site = 0;          // number of the memory instruction: Block::bounds
    uint8_t count = 1;          // elements of a vector
    uint8_t needed = 255;       // bytes of what a load reads, from its address on, that are used
    bool wide_address = false;  // the address has 64 bits
    bool strong = false;        // volatile, relaxed, acquire or release
    bool anywhere = false;      // of a warp operation: lanes may run it at several places
    Space space = Space::generic;
    Handlers body;  // what a guarded instruction runs where its guard holds
};

// A value that is in its place before the first instruction.
struct Preset {
    enum Kind : uint8_t {
        constant,
        parameter,
        tid_x,
        tid_y,
        tid_z,
        warpid,  // of a warp
        ctaid_x,
        ctaid_y,
        ctaid_z,
        smid,  // of a block
        ntid_x,
        ntid_y,
        ntid_z,
        nctaid_x,
        nctaid_y,
        nctaid_z,
        nwarpid,
        nsmid,
        gridid,
        dynamic_smem_size,
        total_smem_size,
        laneid,
        lanemask_eq,
        lanemask_le,
        lanemask_lt,
        lanemask_ge,
        lanemask_gt,
    };
    Kind kind;
    Type type = Type::u32;  // of a parameter
    bool wide = false;      // takes pairs of words
    uint64_t bits = 0;      // of a constant; a parameter's offset
    uint32_t place = 0;     // offset among the warp's registers or the common values

    bool of_warp() const { return kind >= tid_x && kind <= warpid; }
};

// What a kernel's text becomes.
struct Program {
    std::string kernel;
    std::vector<Instruction> code;
    std::vector<const Statement *> statements;  // of each instruction; nullptr of a join
    std::deque<Statement> text;
    std::deque<std::vector<uint32_t>> more;  // what Instruction::more points to
    std::map<uint32_t, std::string> files;
    std::map<size_t, std::vector<const Instruction *>> tables;  // of branches through a table
    std::vector<Preset> presets;
    uint32_t register_bytes = 0;  // a warp
    uint32_t common_bytes = 0;
    uint32_t memory_sites = 0;
    uint32_t static_shared = 0, local_bytes = 0;
    bool copies = false;                   // there are asynchronous ones, or groups of them
    bool strong = false;                   // there are strong accesses or atomic operations
    uint32_t smallest_shared_access = 16;  // bytes

    size_t index(const Instruction &i) const { return size_t(&i - code.data()); }
};

}  // namespace gpu
