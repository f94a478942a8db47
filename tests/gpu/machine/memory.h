// Device memory: arrays at real host addresses, in one reserved region with gaps between them.
//
// The host may read and write an array through its address. A byte is marked when it is first
// written; host code that writes memory (copies, memsets) calls wrote(). Freed addresses are reused
// late, so that a stale pointer is more likely to hit no array than another one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <vector>

namespace gpu {

// One array. Its bytes lie from `begin` to `end`; those around it belong to no array.
struct Array {
    uint64_t begin = 0, end = 0;
    std::string name;     // as reports call it; empty for an array without one
    bool whole = false;   // every byte was written: nothing is left to check
    bool marked = false;  // its part of the shadow may have marks
    uint64_t gap = 0;     // unused bytes on either side
};

// The last accesses of the running launch to a word of global memory, or to a byte of it: see
// races.h.
struct Touched { uint32_t writer, reader; };

class Memory {
  public:
    Memory();
    ~Memory();
    Memory(const Memory &) = delete;
    Memory &operator=(const Memory &) = delete;

    // Returns an address that 512 divides, or nullptr if the region is full. 0 bytes make an array
    // without bytes.
    void *allocate(size_t bytes, std::string name = {});
    // Returns false, and does nothing, if no array begins there.
    bool free(void *pointer);
    // The array that a byte belongs to, nullptr if none does. Valid until the array is freed.
    Array *array_at(const void *pointer);
    // Whether an address is of the region, in an array or not.
    bool contains(const void *pointer) const;
    // For reports: the array in whose gap an address outside all arrays lies; nullptr if there is
    // none.
    const Array *nearest(const void *pointer) const;

    // Marks these bytes as written, by the host or a memset.
    void wrote(const void *pointer, size_t bytes);
    // Marks these bytes as uninitialised.
    void unwrote(const void *pointer, size_t bytes);
    // A copy from device to device: uninitialised bytes stay so.
    void copied(const void *to, const void *from, size_t bytes);

    size_t allocated() const { return allocated_; }  // bytes of all arrays

    // The shadows, for accesses that were found to be inside an array.
    uint8_t *marks(uint64_t address) { return marks_ + (address - base_); }  // 1: written
    Touched *touched(uint64_t address) { return touched_ + (address - base_) / 4; }
    Touched *touched_byte(uint64_t address) { return touched_bytes_ + (address - base_); }
    // The launch that touched a page last, for each page of PAGE bytes.
    uint32_t &page_touched(uint64_t address) { return pages_touched_[(address - base_) / PAGE]; }
    void forget_touched();

    static constexpr uint64_t PAGE = 4096;  // what an array's bytes are rounded up to

  private:
    void mark(Array &array, uint64_t begin, uint64_t end, uint8_t value);
    void clear(void *begin, size_t bytes);
    void clear_touched(uint64_t begin, uint64_t bytes);

    uint64_t base_ = 0, next_ = 0;
    uint8_t *marks_ = nullptr;
    Touched *touched_ = nullptr, *touched_bytes_ = nullptr;  // of words, and of bytes
    uint32_t *pages_touched_ = nullptr;
    uint32_t *page_arrays_ = nullptr;  // for every PAGE bytes, the index in slots_ plus 1
    std::deque<Array> slots_;
    std::vector<uint32_t> free_slots_;
    std::map<uint64_t, uint32_t> by_begin_;             // slots of arrays
    std::map<size_t, std::deque<uint64_t>> available_;  // freed begins, by bytes and age
    size_t allocated_ = 0;
};

}  // namespace gpu
