// Locks of global memory's pages.
//
// If two blocks on two host threads access a word, one must check, record and store before the
// other checks. Otherwise neither might see the other's record, or one might see the record without
// the value.
#pragma once

#include <cstdint>

#include "lanes.h"

namespace gpu {

class PageLocks {
  public:
    PageLocks() = default;
    PageLocks(PageLocks &&from) noexcept;
    ~PageLocks() { unlock(); }

    // Locks the pages of some lanes' addresses until this object is destroyed. Each access lies in
    // one page. To be called once, by a thread that holds no other pages.
    void lock(const uint64_t *addresses, uint32_t lanes);

  private:
    void unlock();

    uint16_t held_[LANES];
    int count_ = 0;
};

}  // namespace gpu
