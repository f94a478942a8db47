// What reports of faults say.
#pragma once

#include <string>

#include "block.h"
#include "error.h"

namespace gpu {

// "kernels/pooling/pool.cu:31", or the PTX's line where the text has no lines of source.
std::string place_of(const Program &program, const Instruction &at);

// "add, block (1, 0, 0), thread (7, 0, 0)"; lane -1 leaves the thread out.
std::string where(const Warp &warp, int lane);

// "(7, 0, 0)" of a thread's number in the block.
std::string thread_name(const Warp &warp, uint32_t thread);

// "threads 0-31, 40" of the block, of lanes of one warp.
std::string thread_list(const Warp &warp, uint32_t lanes);

// "read of 4 bytes at kernels/pooling/pool.cu:31"
std::string attempt(const Warp &warp, const Instruction &at, uint32_t bytes, Access access);

// "0x7f0012345678, 4 bytes past the end of an array of 40 bytes (parameter 0)"
std::string address_of(const Running &running, uint64_t address, uint32_t bytes);

// Throws: `lanes` wait in a warp operation whose other members never come.
[[noreturn]] void report_missing_members(const Warp &warp, uint32_t lanes, uint32_t members,
                                         const Instruction &at);

// Throws a fault of one lane: "<where>: <what>".
[[noreturn]] void fault(FaultKind kind, const Warp &warp, int lane, const std::string &what);

}  // namespace gpu
