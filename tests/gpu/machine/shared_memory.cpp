#include "shared_memory.h"

#include <algorithm>

#include "block.h"
#include "report.h"

namespace gpu {
namespace {

// A stamp: the clock, whether an asynchronous copy or an atomic wrote, the thread in the block.
constexpr uint32_t THREAD = 1023, ATOMIC = 1024, COPYING = 2048, CLOCK_SHIFT = 12;
constexpr uint32_t LAST_CLOCK = (1u << 20) - 2;

uint32_t clock_of(uint32_t stamp) { return stamp >> CLOCK_SHIFT; }

}  // namespace

SharedMemory::SharedMemory(uint32_t bytes, uint32_t warps, uint32_t smallest)
    : bytes_(bytes + 16), clocks_(warps), known_(warps * warps), size_(bytes), warps_(warps) {
    while ((2u << shift_) <= smallest) ++shift_;
    granules_.resize((bytes >> shift_) + 1);
}

void SharedMemory::begin_block() {
    if (size_ == 0) return;
    advance(1 + *std::max_element(clocks_.begin(), clocks_.end()));
    first_clock_ = clocks_[0];
}

// Gives all warps one clock, and all of them know it.
void SharedMemory::advance(uint32_t clock) {
    if (clock >= LAST_CLOCK) {
        std::fill(granules_.begin(), granules_.end(), Granule());
        clock = 1;
    }
    std::fill(clocks_.begin(), clocks_.end(), clock);
    std::fill(known_.begin(), known_.end(), clock);
}

uint32_t SharedMemory::stamp(const Warp &warp, int lane) const {
    return clocks_[warp.index] << CLOCK_SHIFT | (warp.index * LANES + uint32_t(lane));
}

// Whether an access is ordered before one that is made now.
bool SharedMemory::ordered(const Warp &warp, uint32_t before, uint32_t now) {
    const uint32_t thread = before & THREAD;
    return thread == (now & THREAD) || clock_of(before) < known(warp.index, thread / LANES);
}

void SharedMemory::check(const Warp &warp, int lane, const Instruction &at, uint32_t address,
                         uint32_t bytes, Access access) {
    const uint32_t now = stamp(warp, lane);
    const uint16_t index = uint16_t(warp.block->running.program.index(at));
    for (uint32_t i = address >> shift_; i <= (address + bytes - 1) >> shift_; ++i) {
        Granule &g = granules_[i];
        const bool written = clock_of(g.writer) >= first_clock_;
        if (written && (!ordered(warp, g.writer, now) || (g.writer & COPYING)) &&
            !(access == Access::atomic && (g.writer & ATOMIC)))
            report(warp, lane, at, address, bytes, access, g, now);
        if (access == Access::read) {
            if (!written) report(warp, lane, at, address, bytes, access, g, now);
            if (ordered(warp, g.reader, now))
                g.reader = now;
            else
                g.other_reader = now;
            g.read_at = index;
        } else {
            if (!ordered(warp, g.reader, now) || !ordered(warp, g.other_reader, now))
                report(warp, lane, at, address, bytes, access, g, now);
            g.writer = access == Access::atomic ? now | ATOMIC : now;
            g.written_at = index;
        }
    }
}

void SharedMemory::begin_copy(const Warp &warp, int lane, const Instruction &at, uint32_t address,
                              uint32_t bytes) {
    check(warp, lane, at, address, bytes, Access::write);
    for (uint32_t i = address >> shift_; i <= (address + bytes - 1) >> shift_; ++i)
        granules_[i].writer |= COPYING;
}

void SharedMemory::end_copy(const Warp &warp, int lane, uint32_t address, uint32_t bytes) {
    for (uint32_t i = address >> shift_; i <= (address + bytes - 1) >> shift_; ++i)
        granules_[i].writer = stamp(warp, lane);
}

void SharedMemory::synchronise_warp(uint32_t warp) {
    if (clocks_[warp] + 1 >= LAST_CLOCK) return;
    known(warp, warp) = ++clocks_[warp];
}

void SharedMemory::synchronise(const std::vector<uint32_t> &warps) {
    if (size_ == 0) return;
    uint32_t latest = 0;
    for (uint32_t warp : warps) latest = std::max(latest, clocks_[warp]);
    if (latest + 1 >= LAST_CLOCK) return;
    // What any of them knows, all of them know now, and each other's past.
    for (uint32_t other = 0; other < warps_; ++other) {
        uint32_t most = 0;
        for (uint32_t warp : warps) most = std::max(most, known(warp, other));
        for (uint32_t warp : warps) known(warp, other) = most;
    }
    for (uint32_t warp : warps) clocks_[warp] = latest + 1;
    for (uint32_t warp : warps)
        for (uint32_t other : warps) known(warp, other) = latest + 1;
}

void SharedMemory::report(const Warp &warp, int lane, const Instruction &at, uint32_t address,
                          uint32_t bytes, Access access, const Granule &g, uint32_t now) {
    const Program &program = warp.block->running.program;
    const auto place = [&](uint16_t index) { return place_of(program, program.code[index]); };
    const auto thread = [&](uint32_t stamp) { return thread_name(warp, stamp & THREAD); };
    const char *verb = access == Access::read    ? "read"
                       : access == Access::write ? "write"
                                                 : "atomic access";
    const std::string what = std::string(verb) + " of " + std::to_string(bytes) +
                             " bytes of shared memory at " + place_of(program, at) + " (offset " +
                             std::to_string(address) + ") ";
    if (clock_of(g.writer) < first_clock_ && access == Access::read)
        fault(FaultKind::unwritten, warp, lane,
              what + "reads what no thread of the block has written");
    if (g.writer & COPYING)
        fault(FaultKind::early_read, warp, lane,
              what + "touches what an asynchronous copy begun at " + place(g.written_at) +
                  " by thread " + thread(g.writer) +
                  " is on its way to: its thread has not waited for it");
    if (clock_of(g.writer) >= first_clock_ && !ordered(warp, g.writer, now))
        fault(FaultKind::race, warp, lane,
              what + "races with thread " + thread(g.writer) + ", which wrote it at " +
                  place(g.written_at) + " since the last barrier of both");
    const uint32_t reader = ordered(warp, g.reader, now) ? g.other_reader : g.reader;
    fault(FaultKind::race, warp, lane,
          what + "races with thread " + thread(reader) + ", which read it at " +
              place(g.read_at) + " since the last barrier of both");
}

}  // namespace gpu
