// Shared memory of a block, with the check of every access.
//
// Two accesses of a byte by different threads, one of them a write, must be ordered: by a barrier
// that both threads take part in, or a __syncwarp of their warp. By vector clocks: each warp has a
// clock, which a barrier or __syncwarp advances, and knows the others' clocks as of the last
// barrier with each. What a thread did is ordered before an access by warp w if its clock then was
// below what w knows now.
#pragma once

#include <cstdint>
#include <vector>

#include "lanes.h"

namespace gpu {

struct Warp;
struct Instruction;

// `copy`: the target of an asynchronous copy.
enum class Access : uint8_t { read, write, atomic, copy };

// Where in shared memory the lanes of a warp access it.
using Offsets = uint32_t[32];

class SharedMemory {
  public:
    // For a launch: `smallest` is the fewest bytes that an instruction of the program accesses.
    SharedMemory(uint32_t bytes, uint32_t warps, uint32_t smallest);

    void begin_block();

    char *data() { return bytes_.data(); }
    uint32_t size() const { return size_; }

    // Checks an access of the active lanes to bytes inside, and notes it; throws Fault.
    // Where lanes write to the same place, Warp::overwritten names all active ones.
    void check(Warp &warp, const Instruction &at, Shape shape, const Offsets &offsets,
               uint32_t bytes, Access access);
    // Throws: a lane's bytes at a host address were overwritten by another lane's.
    [[noreturn]] void report_overwritten(const Warp &warp, const Instruction &at, int lane,
                                         const void *address);
    // An asynchronous copy to these bytes has arrived.
    void end_copy(const Warp &warp, int lane, uint32_t address, uint32_t bytes);

    // Lanes of a warp, or warps, have synchronised.
    void synchronise_warp(uint32_t warp);
    void synchronise(const std::vector<uint32_t> &warps);

  private:
    uint32_t &known(uint32_t warp, uint32_t other) { return known_[warp * warps_ + other]; }
    uint32_t stamp(const Warp &warp, int lane) const;
    bool ordered(const Warp &warp, uint32_t before, uint32_t now);
    void advance(uint32_t clock);
    void note_least_known();
    void renumber();
    template <class Touch> void read(const Warp &warp, const Instruction &at, const Touch &touch);
    template <class Touch>
    void write(Warp &warp, const Instruction &at, const Touch &touch, Access access);
    template <class Touch>
    void note(Warp &warp, const Instruction &at, const Touch &touch, Access access);
    template <class Touch>
    void check_lanes(const Warp &warp, const Instruction &at, const Touch &touch, Access access);
    void note_reader(uint32_t granule, uint32_t now, uint32_t least);
    void read_lane(const Warp &warp, int lane, const Instruction &at, uint32_t granule);
    void check_lane(const Warp &warp, int lane, const Instruction &at, uint32_t granule,
                    Access access);
    [[noreturn]] void report(const Warp &warp, int lane, const Instruction &at, uint32_t granule,
                             Access access, uint32_t now);

    // Per granule, which has as many bytes as the program's smallest access: the stamps of its last
    // writer and of two readers (0: none), and their instructions, as far as the index fits.
    std::vector<uint32_t> writer_, reader_, other_reader_;
    std::vector<uint16_t> written_at_, read_at_;
    std::vector<char> bytes_;
    std::vector<uint32_t> clocks_, known_;
    std::vector<uint32_t> least_known_;  // per warp, the smallest clock that it knows
    uint32_t size_, warps_, shift_ = 0;
    uint32_t first_clock_ = 1;  // of this block: older stamps are another block's
};

}  // namespace gpu
