// Global memory: reads of what nobody wrote, and races between the blocks of a launch.
//
// Two blocks that access a word, one of them to write, have no order within a launch. Who touched
// each word is kept in a shadow: the last writer, with the bytes of the word that it wrote, and the
// last reader. Writes of the value that is there already, and atomic operations among each other,
// are no race. A block that ... synchronises with others by fences and atomics.
#pragma once

#include "block.h"

namespace gpu {

void note_global_access(const Warp &warp, int lane, const Instruction &at, const Array &array,
                        uint64_t address, uint32_t bytes, Access access);

// The active lanes' accesses so far are ordered before those that follow for other blocks.
void note_fence(Warp &warp);

}  // namespace gpu
