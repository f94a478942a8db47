// Basic blocks of a kernel, and where paths that diverge at a branch reconverge.
#pragma once

#include <cstdint>
#include <vector>

#include "flat.h"

namespace gpu {

struct BasicBlock {
    uint32_t begin, end;  // statements
    std::vector<uint32_t> successors;
    int join = -1;         // its immediate post-dominator, -1: the end of the kernel
    bool is_join = false;  // of a block with several successors
};

// Throws Error for a branch to a label that is not there.
std::vector<BasicBlock> flow_of(const Flat &flat);

}  // namespace gpu
