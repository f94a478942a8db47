#include "counting.h"

#include <algorithm>

#include "banks.h"
#include "block.h"

namespace gpu {
namespace {

constexpr uint64_t SECTOR = 32;

// The lanes that run it: a guard keeps some from it.
uint32_t lanes_of(const Warp &w, const Instruction &i) {
    const bool guarded = i.guard != NO_OPERAND && i.body.full;
    return guarded ? w.active & w.bits(i.guard) : w.active;
}

Wavefronts operator+(Wavefronts a, Wavefronts b) {
    return {a.taken + b.taken, a.conflicts + b.conflicts};
}

}  // namespace

Counting::Counting(const Block &block)
    : block_(block), kinds_(kinds_of(block.running.program)), counts_(kinds_.size()),
      warps_(block.warps.size()) {}

void Counting::note(const Warp &warp, const Instruction &at) {
    const size_t index = block_.running.program.index(at);
    const Kind &kind = kinds_[index];
    if (!kind.counted) return;
    const uint32_t lanes = lanes_of(warp, at);
    ++counts_[index].warps;
    counts_[index].lanes += uint32_t(__builtin_popcount(lanes));
    if (!lanes) return;
    warps_[warp.index] += kind.lasting;
    if (kind.memory) note_memory(warp, at, kind, lanes);
}

void Counting::note_memory(const Warp &warp, const Instruction &at, const Kind &kind,
                           uint32_t lanes) {
    if (kind.figure == COPY) return note_copy(warp, at, kind, lanes);
    const Addresses addresses = addresses_of(warp, at);
    if (kind.figure == MATRIX_LOAD) return note_matrices(kind, lanes, addresses);
    if (at.space == Space::generic)
        note_generic(warp, at, kind, lanes, addresses, kind.bytes);
    else
        note_space(warp, at, kind, at.space, lanes, addresses, kind.bytes);
}

void Counting::note_generic(const Warp &warp, const Instruction &at, const Kind &kind,
                            uint32_t lanes, const Addresses &addresses, uint32_t bytes) {
    const auto inside = [&](uint64_t window) {
        return lanes & bits_where([&](int l) { return addresses.of[l] - window < WINDOW_BYTES; });
    };
    const uint32_t shared = inside(SHARED_WINDOW);
    const uint32_t others = inside(LOCAL_WINDOW) | inside(PARAMETER_WINDOW);
    if (shared) note_space(warp, at, kind, Space::shared, shared, addresses, bytes);
    const uint32_t global = lanes & ~shared & ~others;
    if (global) note_space(warp, at, kind, Space::global, global, addresses, bytes);
}

void Counting::note_space(const Warp &, const Instruction &, const Kind &kind, Space space,
                          uint32_t lanes, const Addresses &addresses, uint32_t bytes) {
    if (space == Space::shared) return note_shared(kind, lanes, addresses, bytes);
    if (space != Space::global) return;
    uint32_t each[LANES];
    std::fill_n(each, LANES, bytes);
    note_global(kind, lanes, addresses, each);
}

void Counting::note_shared(const Kind &kind, uint32_t lanes, const Addresses &addresses,
                           uint32_t bytes) {
    const bool atomic = kind.figure == ATOMIC_SHARED || kind.figure == ATOMIC_GLOBAL;
    // Banks repeat in every window, so that generic addresses need not become offsets.
    const Wavefronts w = atomic ? atomic_wavefronts(addresses.of, lanes, bytes)
                                : wavefronts(addresses.of, lanes, bytes);
    const bool merges = !atomic && kind.figure != COPY;
    ++figures_[SHARED_REQUESTS];
    figures_[SHARED_WAVEFRONTS] += w.taken;
    figures_[SHARED_CONFLICTS] += w.conflicts;
    least_sixteenths_ +=
        merges ? least_sixteenths(addresses.of, lanes, bytes) : SIXTEENTHS * w.taken;
}

// Eight rows of 16 bytes each: one wavefront a matrix, if they lie in different banks.
void Counting::note_matrices(const Kind &kind, uint32_t lanes, const Addresses &addresses) {
    constexpr uint32_t ROWS = 8, ROW_BYTES = 16;
    Wavefronts w = {0, 0};
    for (uint32_t matrix = 0; matrix < kind.bytes; ++matrix)
        w = w + wavefronts(addresses.of, lanes & (0xffu << matrix * ROWS), ROW_BYTES);
    ++figures_[SHARED_REQUESTS];
    figures_[SHARED_WAVEFRONTS] += w.taken;
    figures_[SHARED_CONFLICTS] += w.conflicts;
    least_sixteenths_ += SIXTEENTHS * w.taken;
}

void Counting::note_copy(const Warp &warp, const Instruction &at, const Kind &kind,
                         uint32_t lanes) {
    note_shared(kind, lanes, addresses_of(warp, at), at.count);
    const Addresses from = addresses_of(warp, at.b, at.offset_b, true);
    const uint32_t skipped = at.more ? warp.bits(at.more[0]) : 0;
    uint32_t bytes[LANES], reading = 0;
    for (uint32_t rest = lanes; rest; rest &= rest - 1) {
        const int l = lowest(rest);
        bytes[l] = at.c == NO_OPERAND ? at.count : warp.at<uint32_t>(at.c)[l];
        if (bytes[l] && !(skipped >> l & 1)) reading |= 1u << l;
    }
    if (reading) note_global(kind, reading, from, bytes);
}

void Counting::note_global(const Kind &kind, uint32_t lanes, const Addresses &addresses,
                           const uint32_t *bytes) {
    struct Range { uint64_t begin, end; };
    Range ranges[LANES];
    uint32_t count = 0;
    for (uint32_t rest = lanes; rest; rest &= rest - 1) {
        const int l = lowest(rest);
        const Range range = {addresses.of[l], addresses.of[l] + bytes[l]};
        const bool again =
            count && range.begin == ranges[count - 1].begin && range.end == ranges[count - 1].end;
        if (!again) ranges[count++] = range;
    }
    const auto before = [](const Range &a, const Range &b) { return a.begin < b.begin; };
    if (!std::is_sorted(ranges, ranges + count, before)) std::sort(ranges, ranges + count, before);
    const bool atomic = kind.figure == ATOMIC_GLOBAL;
    const bool store = kind.figure == STORE_GLOBAL;
    uint64_t sectors = 0, used = 0, next_sector = 0, next_byte = 0;
    for (const Range *r = ranges; r < ranges + count; ++r) {
        const uint64_t begin = std::max(r->begin, next_byte);
        if (begin >= r->end) continue;
        used += r->end - begin;
        next_byte = r->end;
        const uint64_t last = (r->end - 1) / SECTOR;
        for (uint64_t s = std::max(r->begin / SECTOR, next_sector); s <= last; ++s) {
            ++sectors;
            if (!store) totals.sectors.read(s, block_.number);
            if (store || atomic) totals.sectors.write(s, block_.number);
        }
        next_sector = last + 1;
    }
    if (atomic) {
        ++figures_[ATOMIC_REQUESTS];
        figures_[ATOMIC_SECTORS] += sectors;
    } else if (store) {
        ++figures_[GLOBAL_STORE_REQUESTS];
        figures_[GLOBAL_STORE_SECTORS] += sectors;
        figures_[GLOBAL_STORE_BYTES] += used;
    } else {
        ++figures_[GLOBAL_LOAD_REQUESTS];
        figures_[GLOBAL_LOAD_SECTORS] += sectors;
        figures_[GLOBAL_LOAD_BYTES] += used;
        if (kind.uncached) figures_[UNCACHED_SECTORS] += sectors;
    }
}

void Counting::end_block() {
    Counters block;
    for (size_t i = 0; i < counts_.size(); ++i) {
        const Kind &kind = kinds_[i];
        Count &count = counts_[i];
        if (!count.warps) continue;
        figures_[kind.figure] += count.warps;
        figures_[ACTIVE_LANES] += count.lanes;
        if (kind.operations != FIGURES)
            figures_[kind.operations] +=
                (kind.figure == TENSOR ? count.warps : count.lanes) * kind.operations_per_lane;
        if (kind.figure == TENSOR)
            block.tensor[tensor_name(*block_.running.program.statements[i])] += count.warps;
        count = Count();
    }
    for (uint64_t &warp : warps_) {
        block.longest_warp = std::max(block.longest_warp, warp / SIXTEENTHS);
        figures_[LASTING] += warp / SIXTEENTHS;
        warp = 0;
    }
    figures_[SHARED_LEAST] = least_sixteenths_ / SIXTEENTHS;
    least_sixteenths_ = 0;
    block.all = block.least = figures_;
    block.blocks = 1;
    figures_ = Figures();
    totals.add(block);
}

}  // namespace gpu
