// Counts what the blocks of one host thread do.
#pragma once

#include <vector>

#include "access.h"
#include "counters.h"
#include "kinds.h"
#include "warp.h"

namespace gpu {

class Counting {
  public:
    explicit Counting(const Block &block);

    // Counts an instruction that a warp is about to run.
    void note(const Warp &warp, const Instruction &at);
    // The block has run to its end: its figures become part of the totals.
    void end_block();

    Counters totals;

  private:
    struct Count { uint64_t warps, lanes; };

    void note_memory(const Warp &warp, const Instruction &at, const Kind &kind, uint32_t lanes);
    void note_space(const Warp &warp, const Instruction &at, const Kind &kind, Space space,
                    uint32_t lanes, const Addresses &addresses, uint32_t bytes);
    void note_generic(const Warp &warp, const Instruction &at, const Kind &kind, uint32_t lanes,
                      const Addresses &addresses, uint32_t bytes);
    void note_global(const Kind &kind, uint32_t lanes, const Addresses &addresses,
                     const uint32_t *bytes);
    void note_shared(const Kind &kind, uint32_t lanes, const Addresses &addresses, uint32_t bytes);
    void note_matrices(const Kind &kind, uint32_t lanes, const Addresses &addresses);
    void note_copy(const Warp &warp, const Instruction &at, const Kind &kind, uint32_t lanes);

    const Block &block_;
    std::vector<Kind> kinds_;
    std::vector<Count> counts_;      // of the running block, by instruction
    std::vector<uint64_t> warps_;    // of each warp, the instructions that no assembler leaves out,
    uint64_t least_sixteenths_ = 0;  // and wavefronts of shared memory: both in sixteenths
    Figures figures_{};              // of the running block
};

}  // namespace gpu
