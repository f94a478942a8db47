// Global memory: reads of uninitialised memory, and races between the blocks of a launch.
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
// A shadow holds the last accesses to each word and, for words accessed by single bytes or halves,
// to each byte.
#pragma once

#include "access.h"

namespace gpu {

// Checks and records the lanes' accesses, which lie inside an array. Lanes that overwrite another
// block's value are left in Warp::overwrites: only the store can tell whether the value is the
// same.
void note_global(Warp &warp, const Instruction &at, const Array &array, uint32_t lanes,
                 const Addresses &addresses, uint32_t bytes, Access access);

// Throws: one of those lanes writes another value.
[[noreturn]] void report_overwrite(const Warp &warp, int lane, const Instruction &at,
                                   uint64_t address, uint32_t bytes);

// A fence, and a strong access, by the warp's block.
void note_fence(Warp &warp);
void note_strong(Warp &warp);

}  // namespace gpu
