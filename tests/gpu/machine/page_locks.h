// Locks of global memory's pages.
//
// Of two blocks on two host threads that access a word, one must check, note and store before the
// other checks: else neither would see the other's note, or one would see the note without the
// value.
#pragma once

#include <cstdint>

#include "lanes.h"

namespace gpu {

class PageLocks {
  public:
    PageLocks() = default;
    PageLocks(PageLocks &&from) noexcept;
    ~PageLocks() { unlock(); }

    // Keeps others from the pages of some lanes' addresses, until this object ends. Each access is
    // inside one page. Once only, and by a thread that holds no other pages.
    void lock(const uint64_t *addresses, uint32_t lanes);

  private:
    void unlock();

    uint16_t held_[LANES];
    int count_ = 0;
};

}  // namespace gpu
