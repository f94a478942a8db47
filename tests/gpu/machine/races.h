// Global memory: reads of what nobody wrote, and races between the blocks of a launch.
//
// The blocks of a launch have no order. If two of them access a byte and one writes, that is a
// race, unless
//
//   - both accesses are strong (atomic operations, or loads and stores that are volatile, relaxed,
//     acquire or release)
//   - the writer fenced and then did something strong (released what it had written), and the other
//     block did something strong after that (acquired it): "the last block adds up"; of what other
//     warps of the block wrote, only what a barrier orders before is released
//   - both write the same value
//
// Who touched each word last is kept in a shadow, and of words whose bytes are accessed one by one
// or two at a time, who touched each byte.
#pragma once

#include "access.h"

namespace gpu {

// Checks accesses of lanes, which lie inside an array, and notes them. Lanes that write what
// another block wrote are left in Warp::overwrites: only who stores knows whether the value is the
// same.
void note_global(Warp &warp, const Instruction &at, const Array &array, uint32_t lanes,
                 const Addresses &addresses, uint32_t bytes, Access access);

// One of those lanes writes another value.
[[noreturn]] void report_overwrite(const Warp &warp, int lane, const Instruction &at,
                                   uint64_t address, uint32_t bytes);

// A fence, and something strong of the warp's block.
void note_fence(Warp &warp);
void note_strong(Warp &warp);

}  // namespace gpu
