#include "page_locks.h"

#include <algorithm>
#include <atomic>
#include <thread>

namespace gpu {
namespace {

constexpr uint64_t PAGE = 4096, LOCKS = 1024;  // pages share locks
std::atomic<bool> locked[LOCKS];

}  // namespace

PageLocks::PageLocks(PageLocks &&from) noexcept : count_(from.count_) {
    std::copy_n(from.held_, count_, held_);
    from.count_ = 0;
}

// In ascending order, so that no two threads wait for each other.
void PageLocks::lock(const uint64_t *addresses, uint32_t lanes) {
    for (uint32_t rest = lanes; rest; rest &= rest - 1) {
        const uint16_t page = uint16_t(addresses[lowest(rest)] / PAGE % LOCKS);
        if (count_ && held_[count_ - 1] == page) continue;
        uint16_t *const place = std::lower_bound(held_, held_ + count_, page);
        if (place < held_ + count_ && *place == page) continue;
        std::copy_backward(place, held_ + count_, held_ + count_ + 1);
        *place = page;
        ++count_;
    }
    for (int i = 0; i < count_; ++i)
        while (locked[held_[i]].exchange(true, std::memory_order_acquire))
            std::this_thread::yield();
}

void PageLocks::unlock() {
    for (int i = 0; i < count_; ++i) locked[held_[i]].store(false, std::memory_order_release);
    count_ = 0;
}

}  // namespace gpu
