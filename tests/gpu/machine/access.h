// Addresses of a warp's lanes, checked and turned into addresses of the host.
#pragma once

#include "block.h"
#include "page_locks.h"
#include "shared_memory.h"

namespace gpu {

// The addresses that the active lanes access; those of the others are not set.
struct Addresses {
    uint64_t of[LANES];
    Shape shape = Shape::scattered;  // set when they are checked
    PageLocks alone;                 // held during a write to global memory

    // Bytes from the first address to the end of the last access, if they are not scattered.
    uint64_t extent(uint32_t bytes) const { return shape == Shape::row ? LANES * bytes : bytes; }
};

// The addresses that the instruction's operand `a` and offset give, in the instruction's space.
Addresses addresses_of(const Warp &warp, const Instruction &at);
// The same for a given operand and offset.
Addresses addresses_of(const Warp &warp, uint32_t operand, int64_t offset, bool wide);

// Checks that addresses of accesses of `bytes` per lane are multiples of `alignment`. Throws Fault.
void check_alignment(const Warp &warp, const Instruction &at, const Addresses &addresses,
                     uint32_t bytes, uint32_t alignment, Access access);

// Checks an access of `bytes` per lane: alignment (to `alignment` bytes), bounds, reads of
// uninitialised memory, races. Then turns the addresses into those of the host. Throws Fault.
void check_access(Warp &warp, const Instruction &at, Space space, Addresses &addresses,
                  uint32_t bytes, uint32_t alignment, Access access);

}  // namespace gpu
