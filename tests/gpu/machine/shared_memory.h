// Shared memory of a block, with the check of every access.
//
// Two accesses of a byte by different threads, one of them a write, need an order: a barrier that
// both threads take part in, or a __syncwarp of their warp. Each warp has a clock, which a barrier
// or __syncwarp advances, and knows the others' clocks as of the last barrier with each. What a
// thread did is ordered before an access by warp w if its clock then was below what w knows now.
#pragma once

#include <cstdint>
#include <vector>

namespace gpu {

struct Warp;
struct Instruction;

// A copy is an asynchronous one's target.
enum class Access : uint8_t { read, write, atomic, copy };

// Who touched a granule: a few bytes, as many as the program's smallest access has.
struct Granule {
    // The clock of the access and its thread, see SharedMemory::stamp; 0: nobody.
    uint32_t writer, reader, other_reader;
    uint16_t written_at, read_at;  // index of the instruction, as far as it fits
};

class SharedMemory {
  public:
    // For a launch: `smallest` is the fewest bytes that an instruction of the program accesses.
    SharedMemory(uint32_t bytes, uint32_t warps, uint32_t smallest);

    void begin_block();

    char *data() { return bytes_.data(); }
    uint32_t size() const { return size_; }

    // Checks an access by one lane to bytes inside; throws Fault.
    void check(const Warp &warp, int lane, const Instruction &at, uint32_t address, uint32_t bytes,
               Access access);
    // An asynchronous copy to these bytes is on its way; it has arrived.
    void begin_copy(const Warp &warp, int lane, const Instruction &at, uint32_t address,
                    uint32_t bytes);
    void end_copy(const Warp &warp, int lane, uint32_t address, uint32_t bytes);

    // Lanes of a warp have met, or warps have.
    void synchronise_warp(uint32_t warp);
    void synchronise(const std::vector<uint32_t> &warps);

  private:
    uint32_t &known(uint32_t warp, uint32_t other) { return known_[warp * warps_ + other]; }
    uint32_t stamp(const Warp &warp, int lane) const;
    bool ordered(const Warp &warp, uint32_t before, uint32_t now);
    void advance(uint32_t clock);
    [[noreturn]] void report(const Warp &warp, int lane, const Instruction &at, uint32_t address,
                             uint32_t bytes, Access access, const Granule &g, uint32_t now);

    std::vector<char> bytes_;
    std::vector<Granule> granules_;
    std::vector<uint32_t> clocks_, known_;
    uint32_t size_, warps_, shift_ = 0;
    uint32_t first_clock_ = 1;  // of this block: what is older was another block's
};

}  // namespace gpu
