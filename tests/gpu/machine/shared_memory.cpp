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

// Granules that a warp's lanes touch at once: number k is touched by lane(k).
//
// Anywhere: one granule per lane.
struct Scattered {
    static constexpr bool DISTINCT = false;
    static constexpr uint32_t count = LANES;
    uint32_t granules[LANES];
    uint32_t touched;  // those of lanes that are active

    bool is_touched(uint32_t k) const { return touched >> k & 1; }
    uint32_t granule(uint32_t k) const { return granules[k]; }
    template <class T> T &in(T *of_granules, uint32_t k) const { return of_granules[granules[k]]; }
    uint32_t lane(uint32_t k) const { return k; }
};
// Side by side, all lanes active, 2^shift granules per lane.
struct Row {
    static constexpr bool DISTINCT = true;
    uint32_t first, count, shift;

    bool is_touched(uint32_t) const { return true; }
    uint32_t granule(uint32_t k) const { return first + k; }
    template <class T> T &in(T *of_granules, uint32_t k) const { return (of_granules + first)[k]; }
    uint32_t lane(uint32_t k) const { return k >> shift; }
};

// Whether two stamps are of one thread.
bool same_thread(uint32_t a, uint32_t b) { return ((a ^ b) & THREAD) == 0; }

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

// Sets the clocks of all warps to one value, which all of them know.
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

void SharedMemory::check(Warp &warp, const Instruction &at, Shape shape, const Offsets &offsets,
                         uint32_t bytes, Access access) {
    // Granules per lane: without those that are loaded, but not used.
    const uint32_t count = ((std::min<uint32_t>(bytes, at.needed) - 1) >> shift_) + 1;
    if (shape == Shape::row && bytes <= at.needed)
        return note(warp, at,
                    Row{offsets[0] >> shift_, count * LANES, uint32_t(__builtin_ctz(count))},
                    access);
    // Of neighbours that read the same, the first and the last one are enough: a later write is
    // unordered with one of them.
    uint32_t readers = shape == Shape::same ? 1 | 1u << (LANES - 1) : warp.active;
    if (readers == ALL) {
        const uint32_t firsts =
            1 | bits_where([&](int l) { return offsets[l] != offsets[l ? l - 1 : 0]; });
        readers = firsts | firsts >> 1 | 1u << (LANES - 1);
    }
    if (access == Access::read && __builtin_popcount(readers) <= LANES / 2) {
        for (uint32_t rest = readers; rest; rest &= rest - 1)
            for (uint32_t done = 0; done < count; ++done)
                read_lane(warp, lowest(rest), at, (offsets[lowest(rest)] >> shift_) + done);
        return;
    }
    Scattered touch;
    touch.touched = warp.active;
    const uint32_t any = offsets[lowest(warp.active)];
    for (int l = 0; l < LANES; ++l)
        touch.granules[l] = (warp.active >> l & 1 ? offsets[l] : any) >> shift_;
    for (uint32_t done = 0; done < count; ++done) {
        note(warp, at, touch, access);
        for (uint32_t &granule : touch.granules) ++granule;
    }
}

template <class Touch>
void SharedMemory::note(Warp &warp, const Instruction &at, const Touch &touch, Access access) {
    if (access == Access::read)
        read(warp, at, touch);
    else
        write(warp, at, touch, access);
}

template <class Touch>
void SharedMemory::check_lanes(const Warp &warp, const Instruction &at, const Touch &touch,
                               Access access) {
    for (uint32_t k = 0; k < touch.count; ++k)
        if (touch.is_touched(k)) check_lane(warp, int(touch.lane(k)), at, touch.granule(k), access);
}

// A reader that may be concurrent with a warp stays; there is room for one more.
inline void SharedMemory::note_reader(uint32_t granule, uint32_t now, uint32_t least) {
    const uint32_t reader = reader_[granule];
    const bool taken = (reader >= least) & (reader != now);
    reader_[granule] = taken ? reader : now;
    other_reader_[granule] = taken ? now : other_reader_[granule];
}

// First tries all granules at once, by the smallest known clock or because they are one thread's;
// if that does not settle it, checks each granule.
template <class Touch>
void SharedMemory::read(const Warp &warp, const Instruction &at, const Touch &touch) {
    const uint32_t first = stamp(warp, 0), least = least_known_[warp.index] << CLOCK_SHIFT;
    const uint32_t begin = first_clock_ << CLOCK_SHIFT;
    const uint32_t *const writers = writer_.data();
    uint32_t *const readers = reader_.data(), *const others = other_reader_.data();
    uint16_t *const read_at = read_at_.data();
    uint32_t doubtful = 0;
    for (uint32_t k = 0; k < touch.count; ++k) {
        const uint32_t writer = touch.in(writers, k);
        doubtful |= (writer < begin) | ((writer & COPYING) != 0) |
                    ((writer >= least) & !same_thread(writer, first + touch.lane(k)));
    }
    if (doubtful) check_lanes(warp, at, touch, Access::read);
    const uint16_t index = uint16_t(warp.block->running.program.index(at));
    if constexpr (Touch::DISTINCT) {
#pragma GCC ivdep
        for (uint32_t k = 0; k < touch.count; ++k) {
            const uint32_t now = first + touch.lane(k);
            const uint32_t reader = touch.in(readers, k), other = touch.in(others, k);
            const bool taken = (reader >= least) & (reader != now);
            touch.in(readers, k) = taken ? reader : now;
            touch.in(others, k) = taken ? now : other;
        }
        std::fill_n(read_at + touch.first, touch.count, index);
    } else {
        // Of lanes that read the same, one is the reader and another one the other.
        for (uint32_t rest = touch.touched; rest; rest &= rest - 1) {
            const uint32_t lane = uint32_t(lowest(rest));
            note_reader(touch.granule(lane), first + lane, least);
            read_at[touch.granule(lane)] = index;
        }
    }
}

template <class Touch>
void SharedMemory::write(Warp &warp, const Instruction &at, const Touch &touch, Access access) {
    const uint32_t first = stamp(warp, 0), least = least_known_[warp.index] << CLOCK_SHIFT;
    uint32_t *const writers = writer_.data();
    const uint32_t *const readers = reader_.data(), *const others = other_reader_.data();
    uint16_t *const written_at = written_at_.data();
    uint32_t doubtful = 0;
    for (uint32_t k = 0; k < touch.count; ++k) {
        const uint32_t now = first + touch.lane(k), writer = touch.in(writers, k);
        const uint32_t one = touch.in(readers, k), other = touch.in(others, k);
        doubtful |= ((writer & COPYING) != 0) | ((writer >= least) & !same_thread(writer, now)) |
                    ((one >= least) & !same_thread(one, now)) |
                    ((other >= least) & !same_thread(other, now));
    }
    if (doubtful) check_lanes(warp, at, touch, access);
    const uint32_t flags = access == Access::atomic ? ATOMIC : access == Access::copy ? COPYING : 0;
    const uint16_t index = uint16_t(warp.block->running.program.index(at));
    if constexpr (Touch::DISTINCT) {
        for (uint32_t k = 0; k < touch.count; ++k)
            touch.in(writers, k) = (first + touch.lane(k)) | flags;
        std::fill_n(written_at + touch.first, touch.count, index);
    } else {
        for (uint32_t rest = touch.touched; rest; rest &= rest - 1) {
            const uint32_t lane = uint32_t(lowest(rest));
            writers[touch.granule(lane)] = (first + lane) | flags;
            written_at[touch.granule(lane)] = index;
        }
        if (access == Access::atomic) return;
        // Of lanes that write to one place one is the last; what the others write must be the same.
        const uint32_t lost =
            touch.touched & bits_where([&](int lane) {
                return writers[touch.granule(uint32_t(lane))] != ((first + uint32_t(lane)) | flags);
            });
        if (lost && access == Access::write) {
            warp.overwritten = warp.active;
            return;
        }
        for (uint32_t rest = lost; rest; rest &= rest - 1)
            check_lane(warp, lowest(rest), at, touch.granule(uint32_t(lowest(rest))), access);
    }
}

void SharedMemory::report_overwritten(const Warp &warp, const Instruction &at, int lane,
                                      const void *address) {
    const auto offset = uint32_t(static_cast<const char *>(address) - bytes_.data());
    report(warp, lane, at, offset >> shift_, Access::write, stamp(warp, lane));
}

void SharedMemory::read_lane(const Warp &warp, int lane, const Instruction &at, uint32_t granule) {
    const uint32_t now = stamp(warp, lane), least = least_known_[warp.index] << CLOCK_SHIFT;
    const uint32_t writer = writer_[granule];
    if (writer < first_clock_ << CLOCK_SHIFT || writer >= least || (writer & COPYING))
        check_lane(warp, lane, at, granule, Access::read);
    note_reader(granule, now, least);
    read_at_[granule] = uint16_t(warp.block->running.program.index(at));
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
    // All of them now know what any of them knew, and each other's past accesses.
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

// The clocks have reached their maximum: all earlier accesses count as ordered.
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
