// Register allocation: PTX has thousands of registers, few of them live at once.
#pragma once

#include <cstdint>
#include <vector>

#include "types.h"

namespace gpu {

// An instruction's use of a register.
struct RegisterUse {
    uint32_t instruction, reg;
    bool reads, writes;
};

// A basic block and its successors.
struct Stretch {
    uint32_t begin, end;
    std::vector<uint32_t> successors;
};

struct Allocation {
    std::vector<uint32_t> places;  // of each register: an offset in bytes
    uint32_t bytes = 0;
};

// Places registers so that two which are live at once do not share memory. `uses` are in the order
// of the instructions. The first `reserved` bytes are left alone.
Allocation allocate_registers(const std::vector<Width> &registers,
                              const std::vector<RegisterUse> &uses,
                              const std::vector<Stretch> &stretches, uint32_t reserved);

}  // namespace gpu
