#include "memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>

#include "error.h"

namespace gpu {
namespace {

// Address space only: pages take memory when they are first touched.
constexpr uint64_t REGION = uint64_t(1) << 39;
constexpr uint64_t PAGE = Memory::PAGE;
constexpr uint64_t CLEARED = 1 << 18;  // from here on, freed pages are returned to the system
constexpr size_t WAITING = 64;         // freed arrays of a size that wait before one is used again

void *reserve(uint64_t bytes) {
    void *address = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (address == MAP_FAILED)
        throw Error("the emulated GPU could not reserve " + std::to_string(bytes >> 30) +
                    " GiB of address space for its memory");
    return address;
}

uint64_t pages(uint64_t bytes) { return (std::max<uint64_t>(bytes, 1) + PAGE - 1) / PAGE * PAGE; }
uint64_t address(const void *pointer) { return reinterpret_cast<uint64_t>(pointer); }

}  // namespace

Memory::Memory() {
    base_ = next_ = address(reserve(REGION));
    marks_ = static_cast<uint8_t *>(reserve(REGION));
    touched_ = static_cast<Touched *>(reserve(REGION / 4 * sizeof(Touched)));
    touched_bytes_ = static_cast<Touched *>(reserve(REGION * sizeof(Touched)));
    pages_touched_ = static_cast<uint32_t *>(reserve(REGION / PAGE * 4));
    page_arrays_ = static_cast<uint32_t *>(reserve(REGION / PAGE * 4));
}

Memory::~Memory() {
    munmap(reinterpret_cast<void *>(base_), REGION);
    munmap(marks_, REGION);
    munmap(touched_, REGION / 4 * sizeof(Touched));
    munmap(touched_bytes_, REGION * sizeof(Touched));
    munmap(pages_touched_, REGION / PAGE * 4);
    munmap(page_arrays_, REGION / PAGE * 4);
}

void *Memory::allocate(size_t bytes, std::string name) {
    if (bytes > REGION / 8) return nullptr;
    const uint64_t room = pages(bytes);
    std::deque<uint64_t> &freed = available_[room];
    uint64_t begin;
    if (next_ + 3 * room <= base_ + REGION && freed.size() < WAITING) {
        begin = next_ + room;  // a gap of an array's own size, so that far indices hit no array
        next_ = begin + 2 * room;
    } else if (!freed.empty()) {
        begin = freed.front();
        freed.pop_front();
    } else {
        return nullptr;
    }
    if (free_slots_.empty()) {
        free_slots_.push_back(uint32_t(slots_.size()));
        slots_.emplace_back();
    }
    const uint32_t slot = free_slots_.back();
    free_slots_.pop_back();
    slots_[slot] = Array{begin, begin + bytes, std::move(name), bytes == 0, false, room};
    by_begin_[begin] = slot;
    std::fill_n(page_arrays_ + (begin - base_) / PAGE, room / PAGE, slot + 1);
    allocated_ += bytes;
    return reinterpret_cast<void *>(begin);
}

bool Memory::free(void *pointer) {
    const auto found = by_begin_.find(address(pointer));
    if (found == by_begin_.end()) return false;
    const uint32_t slot = found->second;
    const Array &array = slots_[slot];
    const uint64_t bytes = array.end - array.begin, room = pages(bytes);
    if (array.marked) clear(marks(array.begin), bytes);
    if (room >= CLEARED) {
        madvise(pointer, room, MADV_DONTNEED);
        clear_touched(array.begin, room);
    }
    std::fill_n(page_arrays_ + (array.begin - base_) / PAGE, room / PAGE, 0);
    available_[room].push_back(array.begin);
    allocated_ -= bytes;
    by_begin_.erase(found);
    free_slots_.push_back(slot);
    return true;
}

Array *Memory::array_at(const void *pointer) {
    if (!contains(pointer)) return nullptr;
    const uint32_t index = page_arrays_[(address(pointer) - base_) / PAGE];
    if (index == 0) return nullptr;
    Array &array = slots_[index - 1];
    return address(pointer) < array.end ? &array : nullptr;
}

bool Memory::contains(const void *pointer) const { return address(pointer) - base_ < REGION; }

const Array *Memory::nearest(const void *pointer) const {
    const auto above = by_begin_.upper_bound(address(pointer));
    const Array *after = above == by_begin_.end() ? nullptr : &slots_[above->second];
    const Array *before = above == by_begin_.begin() ? nullptr : &slots_[std::prev(above)->second];
    if (!before || !after) return before ? before : after;
    return address(pointer) < after->begin - after->gap ? before : after;
}

void Memory::wrote(const void *pointer, size_t bytes) {
    Array *array = array_at(pointer);
    if (!array || array->whole) return;
    const uint64_t end = std::min(address(pointer) + bytes, array->end);
    if (address(pointer) == array->begin && end == array->end)
        array->whole = true;
    else
        mark(*array, address(pointer), end, 1);
}

void Memory::unwrote(const void *pointer, size_t bytes) {
    Array *array = array_at(pointer);
    if (!array) return;
    if (array->whole) mark(*array, array->begin, array->end, 1);
    array->whole = false;
    mark(*array, address(pointer), std::min(address(pointer) + bytes, array->end), 0);
}

void Memory::copied(const void *to, const void *from, size_t bytes) {
    Array *target = array_at(to);
    if (!target) return;
    Array *source = array_at(from);
    if (!source || source->whole) return wrote(to, bytes);
    if (target->whole) {
        target->whole = false;
        mark(*target, target->begin, target->end, 1);
    }
    target->marked = true;
    memmove(marks(address(to)), marks(address(from)), bytes);
}

void Memory::forget_touched() {
    const uint64_t end = (next_ - base_) / PAGE;
    for (uint64_t page = 0; page < end; ++page) {
        const uint64_t first = page;
        while (page < end && pages_touched_[page]) pages_touched_[page++] = 0;
        const uint64_t bytes = (page - first) * PAGE, begin = base_ + first * PAGE;
        if (bytes) clear_touched(begin, bytes);
    }
}

void Memory::clear_touched(uint64_t begin, uint64_t bytes) {
    clear(touched(begin), bytes / 4 * sizeof(Touched));
    // A byte's entry counts only where its word's says so: clearing it only returns the memory.
    if (bytes * sizeof(Touched) >= CLEARED) clear(touched_byte(begin), bytes * sizeof(Touched));
}

void Memory::mark(Array &array, uint64_t begin, uint64_t end, uint8_t value) {
    array.marked = true;
    memset(marks(begin), value, end - begin);
}

// Zeroes a part of a shadow; large parts return their pages to the system.
void Memory::clear(void *begin, size_t bytes) {
    const uint64_t first = pages(address(begin)), last = (address(begin) + bytes) / PAGE * PAGE;
    if (bytes < CLEARED) {
        memset(begin, 0, bytes);
        return;
    }
    memset(begin, 0, first - address(begin));
    madvise(reinterpret_cast<void *>(first), last - first, MADV_DONTNEED);
    memset(reinterpret_cast<void *>(last), 0, address(begin) + bytes - last);
}

}  // namespace gpu
