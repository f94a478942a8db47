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

// to[lane] = from[which[lane]], and back, for the lanes of a mask.
template <class T> void gather(uint32_t (&to)[LANES], const T *from, const uint32_t *which) {
    for (int l = 0; l < LANES; ++l) to[l] = from[which[l]];
}
template <class T, class V> void scatter(T *to, const uint32_t *which, uint32_t lanes, V value) {
    if (lanes == ALL) {
        for (int l = 0; l < LANES; ++l) to[which[l]] = T(value(l));
    } else {
        for (uint32_t rest = lanes; rest; rest &= rest - 1)
            to[which[lowest(rest)]] = T(value(lowest(rest)));
    }
}

}  // namespace

SharedMemory::SharedMemory(uint32_t bytes, uint32_t warps, uint32_t smallest)
    : bytes_(bytes + 16), clocks_(warps, 1), known_(warps * warps, 1), least_known_(warps, 1),
      size_(bytes), warps_(warps) {
    while ((2u << shift_) <= smallest) ++shift_;
    const uint32_t granules = (bytes >> shift_) + 1;
    writer_.resize(granules), reader_.resize(granules), other_reader_.resize(granules);
    written_at_.resize(granules), read_at_.resize(granules);
}

void SharedMemory::begin_block() {
    if (size_ == 0) return;
    advance(1 + *std::max_element(clocks_.begin(), clocks_.end()));
    first_clock_ = clocks_[0];
}

// Gives all warps one clock, and all of them know it.
void SharedMemory::advance(uint32_t clock) {
    if (clock >= LAST_CLOCK) {
        for (std::vector<uint32_t> *stamps : {&writer_, &reader_, &other_reader_})
            std::fill(stamps->begin(), stamps->end(), 0);
        clock = 1;
    }
    for (std::vector<uint32_t> *clocks : {&clocks_, &known_, &least_known_})
        std::fill(clocks->begin(), clocks->end(), clock);
}

uint32_t SharedMemory::stamp(const Warp &warp, int lane) const {
    return clocks_[warp.index] << CLOCK_SHIFT | (warp.index * LANES + uint32_t(lane));
}

// Whether an access is ordered before one that is made now.
bool SharedMemory::ordered(const Warp &warp, uint32_t before, uint32_t now) {
    const uint32_t thread = before & THREAD;
    return thread == (now & THREAD) || clock_of(before) < known(warp.index, thread / LANES);
}

void SharedMemory::check(Warp &warp, const Instruction &at, const Offsets &offsets,
                         uint32_t bytes, Access access) {
    Granules granules;
    const uint32_t any = offsets[lowest(warp.active)];
    for (int l = 0; l < LANES; ++l)
        granules[l] = (warp.active >> l & 1 ? offsets[l] : any) >> shift_;
    const uint32_t needed = std::min<uint32_t>(bytes, at.needed);
    for (uint32_t done = 0;; done += 1u << shift_) {
        if (access == Access::read)
            read(warp, at, granules);
        else
            write(warp, at, granules, access);
        if (done + (1u << shift_) >= needed) return;
        for (uint32_t &granule : granules) ++granule;
    }
}

// What the least known clock settles is decided for all lanes at once, the rest lane by lane.
void SharedMemory::read(const Warp &warp, const Instruction &at, const Granules &granules) {
    const uint32_t first = stamp(warp, 0), least = least_known_[warp.index] << CLOCK_SHIFT;
    const uint32_t begin = first_clock_ << CLOCK_SHIFT;
    uint32_t writers[LANES], readers[LANES], doubtful = 0, taken = 0;
    gather(writers, writer_.data(), granules);
    gather(readers, reader_.data(), granules);
    for (int l = 0; l < LANES; ++l) {
        doubtful |=
            uint32_t((writers[l] < begin) | (writers[l] >= least) | ((writers[l] & COPYING) != 0))
            << l;
        taken |= uint32_t((readers[l] >= least) & (readers[l] != first + uint32_t(l))) << l;
    }
    for (uint32_t rest = doubtful & warp.active; rest; rest &= rest - 1)
        check_lane(warp, lowest(rest), at, granules[lowest(rest)], Access::read);
    const auto now = [&](int l) { return first + uint32_t(l); };
    scatter(reader_.data(), granules, warp.active & ~taken, now);
    scatter(other_reader_.data(), granules, warp.active & taken, now);
    const uint16_t index = uint16_t(warp.block->running.program.index(at));
    scatter(read_at_.data(), granules, warp.active, [&](int) { return index; });
    // Of lanes that read the same, one is the reader and another one the other.
    gather(readers, reader_.data(), granules);
    uint32_t others = 0;
    for (int l = 0; l < LANES; ++l) others |= uint32_t(readers[l] != now(l)) << l;
    scatter(other_reader_.data(), granules, others & warp.active & ~taken, now);
}

void SharedMemory::write(Warp &warp, const Instruction &at, const Granules &granules,
                         Access access) {
    const uint32_t first = stamp(warp, 0), least = least_known_[warp.index] << CLOCK_SHIFT;
    uint32_t writers[LANES], readers[LANES], others[LANES], doubtful = 0;
    gather(writers, writer_.data(), granules);
    gather(readers, reader_.data(), granules);
    gather(others, other_reader_.data(), granules);
    for (int l = 0; l < LANES; ++l)
        doubtful |= uint32_t((writers[l] >= least) | (readers[l] >= least) | (others[l] >= least) |
                             ((writers[l] & COPYING) != 0))
                    << l;
    for (uint32_t rest = doubtful & warp.active; rest; rest &= rest - 1)
        check_lane(warp, lowest(rest), at, granules[lowest(rest)], access);
    const uint32_t flags = access == Access::atomic ? ATOMIC : access == Access::copy ? COPYING : 0;
    const auto now = [&](int l) { return (first + uint32_t(l)) | flags; };
    scatter(writer_.data(), granules, warp.active, now);
    const uint16_t index = uint16_t(warp.block->running.program.index(at));
    scatter(written_at_.data(), granules, warp.active, [&](int) { return index; });
    if (access == Access::atomic) return;
    // Of lanes that write to the same place one is the last; what the others write must be the same.
    gather(writers, writer_.data(), granules);
    uint32_t lost = 0;
    for (int l = 0; l < LANES; ++l) lost |= uint32_t(writers[l] != now(l)) << l;
    if (access == Access::write) {
        warp.overwritten |= lost & warp.active;
        return;
    }
    for (uint32_t rest = lost & warp.active; rest; rest &= rest - 1)
        check_lane(warp, lowest(rest), at, granules[lowest(rest)], access);
}

void SharedMemory::report_overwritten(const Warp &warp, const Instruction &at, int lane,
                                      const void *address) {
    const auto offset = uint32_t(static_cast<const char *>(address) - bytes_.data());
    report(warp, lane, at, offset >> shift_, Access::write, stamp(warp, lane));
}

void SharedMemory::check_lane(const Warp &warp, int lane, const Instruction &at, uint32_t granule,
                              Access access) {
    const uint32_t now = stamp(warp, lane), writer = writer_[granule];
    const bool written = clock_of(writer) >= first_clock_;
    const bool both_atomic = access == Access::atomic && (writer & ATOMIC);
    bool fine = written || access != Access::read;
    if (written && !both_atomic) fine &= ordered(warp, writer, now) && !(writer & COPYING);
    if (access != Access::read)
        fine &= ordered(warp, reader_[granule], now) && ordered(warp, other_reader_[granule], now);
    if (!fine) report(warp, lane, at, granule, access, now);
}

void SharedMemory::end_copy(const Warp &warp, int lane, uint32_t address, uint32_t bytes) {
    for (uint32_t i = address >> shift_; i <= (address + bytes - 1) >> shift_; ++i)
        writer_[i] = stamp(warp, lane);
}

void SharedMemory::synchronise_warp(uint32_t warp) {
    if (size_ == 0) return;
    if (clocks_[warp] + 1 >= LAST_CLOCK) renumber();
    known(warp, warp) = ++clocks_[warp];
    note_least_known();
}

void SharedMemory::synchronise(const std::vector<uint32_t> &warps) {
    if (size_ == 0) return;
    uint32_t latest = 0;
    for (uint32_t warp : warps) latest = std::max(latest, clocks_[warp]);
    if (latest + 1 >= LAST_CLOCK) {
        renumber();
        latest = clocks_[0];
    }
    if (warps.size() == warps_) {
        const uint32_t next = latest + 1;
        for (std::vector<uint32_t> *clocks : {&clocks_, &known_, &least_known_})
            std::fill(clocks->begin(), clocks->end(), next);
        return;
    }
    // What any of them knows, all of them know now, and each other's past.
    for (uint32_t other = 0; other < warps_; ++other) {
        uint32_t most = 0;
        for (uint32_t warp : warps) most = std::max(most, known(warp, other));
        for (uint32_t warp : warps) known(warp, other) = most;
    }
    for (uint32_t warp : warps) {
        clocks_[warp] = latest + 1;
        for (uint32_t other : warps) known(warp, other) = latest + 1;
    }
    note_least_known();
}

void SharedMemory::note_least_known() {
    for (uint32_t warp = 0; warp < warps_; ++warp)
        least_known_[warp] = *std::min_element(&known(warp, 0), &known(warp, 0) + warps_);
}

// The clocks have reached their end: all that happened so far counts as ordered.
void SharedMemory::renumber() {
    const uint32_t begin = first_clock_;
    for (uint32_t &writer : writer_)
        if (clock_of(writer) >= begin)
            writer = 1u << CLOCK_SHIFT | (writer & (THREAD | ATOMIC | COPYING));
        else
            writer = 0;
    for (std::vector<uint32_t> *stamps : {&reader_, &other_reader_})
        std::fill(stamps->begin(), stamps->end(), 0);
    first_clock_ = 1;
    for (std::vector<uint32_t> *clocks : {&clocks_, &known_, &least_known_})
        std::fill(clocks->begin(), clocks->end(), 2);
}

void SharedMemory::report(const Warp &warp, int lane, const Instruction &at, uint32_t granule,
                          Access access, uint32_t now) {
    const Program &program = warp.block->running.program;
    const auto place = [&](uint16_t index) { return place_of(program, program.code[index]); };
    const auto thread = [&](uint32_t stamp) { return thread_name(warp, stamp & THREAD); };
    const uint32_t writer = writer_[granule];
    const std::string what = attempt(warp, at, 1u << shift_, access) +
                             " of shared memory (offset " + std::to_string(granule << shift_) +
                             ") ";
    if (clock_of(writer) < first_clock_ && access == Access::read)
        fault(FaultKind::unwritten, warp, lane,
              what + "reads what no thread of the block has written");
    if (writer & COPYING)
        fault(FaultKind::early_read, warp, lane,
              what + "touches what an asynchronous copy begun at " + place(written_at_[granule]) +
                  " by thread " + thread(writer) +
                  " is on its way to: its thread has not waited for it");
    if (clock_of(writer) >= first_clock_ && !ordered(warp, writer, now))
        fault(FaultKind::race, warp, lane,
              what + "races with thread " + thread(writer) + ", which wrote it at " +
                  place(written_at_[granule]) + " since the last barrier of both");
    const uint32_t first = reader_[granule];
    const uint32_t reader = ordered(warp, first, now) ? other_reader_[granule] : first;
    fault(FaultKind::race, warp, lane,
          what + "races with thread " + thread(reader) + ", which read it at " +
              place(read_at_[granule]) + " since the last barrier of both");
}

}  // namespace gpu
