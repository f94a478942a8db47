#include "counters.h"

#include <algorithm>

namespace gpu {

const char *name_of(Figure figure) {
    static const char *const names[] = {
        "fma32",
        "add32",
        "mul32",
        "other32",
        "half",
        "fma64",
        "other64",
        "integer",
        "division32",
        "division64",
        "conversion",
        "special",
        "tensor",
        "load_global",
        "store_global",
        "load_shared",
        "store_shared",
        "load_local",
        "store_local",
        "copy",
        "matrix_load",
        "atomic_global",
        "atomic_shared",
        "barrier",
        "warp",
        "control",
        "move",
        "other",
        "lasting",
        "active_lanes",
        "float_operations",
        "half_operations",
        "double_operations",
        "tensor_operations",
        "special_operations",
        "global_load_requests",
        "global_load_sectors",
        "global_load_bytes",
        "uncached_sectors",
        "global_store_requests",
        "global_store_sectors",
        "global_store_bytes",
        "atomic_requests",
        "atomic_sectors",
        "shared_requests",
        "shared_wavefronts",
        "shared_conflicts",
        "shared_least",
    };
    static_assert(sizeof names / sizeof *names == FIGURES);
    return names[figure];
}

Sectors::Page &Sectors::page(uint64_t sector, uint64_t block) {
    if (last_ != sector / PAGE) {
        last_ = sector / PAGE;
        last_page_ = &pages_[last_];  // a map's elements stay where they are
    }
    if (last_page_->block != block) {
        last_page_->block = block;
        last_page_->own[0] = last_page_->own[1] = 0;
    }
    return *last_page_;
}

void Sectors::read(uint64_t sector, uint64_t block) {
    Page &p = page(sector, block);
    const uint64_t word = sector % PAGE / 64, bit = uint64_t(1) << sector % 64;
    p.read[word] |= bit & ~p.own[word];
}

void Sectors::write(uint64_t sector, uint64_t block) {
    Page &p = page(sector, block);
    const uint64_t word = sector % PAGE / 64, bit = uint64_t(1) << sector % 64;
    p.written[word] |= bit;
    p.own[word] |= bit;
}

void Sectors::add(const Sectors &other) {
    for (const auto &[number, theirs] : other.pages_) {
        Page &mine = pages_[number];
        for (int i = 0; i < 2; ++i) {
            mine.read[i] |= theirs.read[i];
            mine.written[i] |= theirs.written[i];
        }
    }
}

void Sectors::follow(const Sectors &later) {
    for (const auto &[number, theirs] : later.pages_) {
        Page &mine = pages_[number];
        for (int i = 0; i < 2; ++i) {
            mine.read[i] |= theirs.read[i] & ~mine.written[i];
            mine.written[i] |= theirs.written[i];
        }
    }
}

Sectors::Totals Sectors::totals() const {
    const auto count = [](uint64_t bits) { return uint64_t(__builtin_popcountll(bits)); };
    Totals totals = {};
    for (const auto &[number, page] : pages_)
        for (int i = 0; i < 2; ++i) {
            totals.read += count(page.read[i]);
            totals.written += count(page.written[i]);
            totals.touched += count(page.read[i] | page.written[i]);
        }
    return totals;
}

void Counters::add(const Counters &others) {
    if (others.blocks == 0) return;
    for (int f = 0; f < FIGURES; ++f) {
        least[f] = blocks == 0 ? others.least[f] : std::min(least[f], others.least[f]);
        all[f] += others.all[f];
    }
    blocks += others.blocks;
    longest_warp = std::max(longest_warp, others.longest_warp);
    for (const auto &[name, count] : others.tensor) tensor[name] += count;
    sectors.add(others.sectors);
}

}  // namespace gpu
