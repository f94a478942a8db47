// What is counted of each instruction of a program.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "counters.h"
#include "instruction.h"

namespace gpu {

constexpr uint32_t SIXTEENTHS = 16;  // of an instruction, or of a wavefront

struct Kind {
    Figure figure = OTHER;  // its class
    bool counted = false;   // false of a join, which is no instruction
    uint8_t lasting = 0;    // sixteenths of it that no assembler can leave out, merge or hoist
    bool memory = false;    // it accesses memory through addresses
    bool uncached = false;  // a load that is never in L1
    bool writes = false;    // of an ldmatrix or stmatrix: the latter
    uint8_t bytes = 0;      // that a lane accesses; of ldmatrix: how many matrices
    Figure operations = FIGURES;       // what its operations are
    uint32_t operations_per_lane = 0;  // of a tensor instruction: of the warp
};

std::vector<Kind> kinds_of(const Program &program);

// Of an mma: its shape and types, "m16n8k16.f32.bf16.bf16.f32".
std::string tensor_name(const Statement &statement);

}  // namespace gpu
