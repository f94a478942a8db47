#include "banks.h"

#include <algorithm>

#include "lanes.h"

namespace gpu {
namespace {

constexpr uint32_t BANKS = 32, WORD = 4;

// The most words in one bank; with `alike`, a word counts as often as lanes access it. An access
// is aligned to its size, so that those of 8 or 16 bytes meet in all of their banks or in none.
uint32_t most_in_a_bank(const uint64_t *offsets, uint32_t lanes, uint32_t bytes, bool alike) {
    const uint32_t unit = std::max(bytes, WORD), places = BANKS * WORD / unit;  // powers of two
    const int shift = __builtin_ctz(unit);
    uint64_t there[BANKS][LANES];
    uint32_t counts[BANKS] = {}, most = 0;
    for (uint32_t rest = lanes; rest; rest &= rest - 1) {
        const uint64_t word = offsets[lowest(rest)] >> shift, place = word & (places - 1);
        uint32_t &count = counts[place];
        uint64_t *const end = there[place] + count;
        if (!alike && std::find(there[place], end, word) != end) continue;
        *end = word;
        most = std::max(most, ++count);
    }
    return most;
}

// Whether all lanes have the address of the lane whose number differs by the bit `apart`.
bool paired(const uint64_t *offsets, uint32_t lanes, int apart) {
    for (uint32_t rest = lanes; rest; rest &= rest - 1) {
        const int lane = lowest(rest), other = lane ^ apart;
        if ((lanes >> other & 1) && offsets[lane] != offsets[other]) return false;
    }
    return true;
}

// The lanes from `first` on, `count` of them, served together, or else one half after the other.
Wavefronts served(const uint64_t *offsets, uint32_t lanes, uint32_t bytes, int first, int count) {
    const uint32_t part = lanes & uint32_t(((uint64_t(1) << count) - 1) << first);
    if (!part) return {0, 0};
    const auto together = [&]() -> Wavefronts {
        const uint32_t taken = most_in_a_bank(offsets, part, bytes, false);
        return {taken, taken - 1};
    };
    if (uint32_t(count) * bytes <= BANKS * WORD) return together();
    Wavefronts halves = {0, 0};
    for (int half = 0; half < 2; ++half) {
        const Wavefronts w = served(offsets, part, bytes, first + half * count / 2, count / 2);
        halves.taken += w.taken, halves.conflicts += w.conflicts;
    }
    const bool merges = uint32_t(count) * bytes == 2 * BANKS * WORD &&
                        (paired(offsets, part, 1) || paired(offsets, part, 2));
    const Wavefronts merged = merges ? together() : halves;
    return merged.taken < halves.taken ? merged : halves;
}

}  // namespace

Wavefronts wavefronts(const uint64_t *offsets, uint32_t lanes, uint32_t bytes) {
    uint64_t apart = ~lanes;
    for (int l = 0; l < LANES; ++l) apart |= offsets[l] ^ (offsets[0] + uint64_t(l) * bytes);
    if (apart == 0 && offsets[0] % bytes == 0) return {std::max(bytes / WORD, 1u), 0};  // a row
    return served(offsets, lanes, bytes, 0, LANES);
}

uint32_t least_sixteenths(const uint64_t *offsets, uint32_t lanes, uint32_t bytes) {
    uint32_t least = 16 * wavefronts(offsets, lanes, bytes).taken;
    for (uint32_t merged = 2 * bytes; merged <= 16; merged *= 2) {
        const uint64_t place = offsets[lowest(lanes)] % merged;
        uint64_t first[LANES];
        for (uint32_t rest = lanes; rest; rest &= rest - 1) {
            const int l = lowest(rest);
            if (offsets[l] % merged != place) return least;
            first[l] = offsets[l] - place;
        }
        least = std::min(least, wavefronts(first, lanes, merged).taken * bytes * 16 / merged);
    }
    return least;
}

Wavefronts atomic_wavefronts(const uint64_t *offsets, uint32_t lanes, uint32_t bytes) {
    if (!lanes) return {0, 0};
    const uint32_t taken = most_in_a_bank(offsets, lanes, bytes, true);
    const uint32_t least = bytes > WORD ? 2 : 1;
    return {taken, taken - std::min(taken, least)};
}

}  // namespace gpu
