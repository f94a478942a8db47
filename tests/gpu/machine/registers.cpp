#include "registers.h"

#include <algorithm>
#include <set>

#include "lanes.h"

namespace gpu {
namespace {

using Set = std::vector<uint64_t>;  // one bit per register

bool has(const Set &set, uint32_t i) { return set[i / 64] >> i % 64 & 1; }
void put(Set &set, uint32_t i) { set[i / 64] |= uint64_t(1) << i % 64; }

struct Life {
    uint32_t begin = UINT32_MAX, end = 0;

    void cover(uint32_t first, uint32_t last) {
        begin = std::min(begin, first);
        end = std::max(end, last);
    }
};

std::vector<Life> lives(size_t registers, const std::vector<RegisterUse> &uses,
                        const std::vector<Stretch> &stretches) {
    const size_t words = (registers + 63) / 64, count = stretches.size();
    std::vector<Set> read_first(count, Set(words)), written(count, Set(words));
    std::vector<Set> live_in(count, Set(words)), live_out(count, Set(words));
    std::vector<Life> found(registers);
    size_t next = 0;
    for (size_t s = 0; s < count; ++s)
        for (; next < uses.size() && uses[next].instruction < stretches[s].end;) {
            const uint32_t at = uses[next].instruction;
            const size_t first = next;
            for (; next < uses.size() && uses[next].instruction == at; ++next) {
                found[uses[next].reg].cover(at, at);
                if (uses[next].reads && !has(written[s], uses[next].reg))
                    put(read_first[s], uses[next].reg);
            }
            for (size_t i = first; i < next; ++i)
                if (uses[i].writes && !uses[i].reads) put(written[s], uses[i].reg);
        }
    for (bool changed = true; changed;) {
        changed = false;
        for (size_t s = count; s-- > 0;)
            for (size_t w = 0; w < words; ++w) {
                uint64_t out = 0;
                for (uint32_t after : stretches[s].successors) out |= live_in[after][w];
                const uint64_t in = read_first[s][w] | (out & ~written[s][w]);
                changed = changed || in != live_in[s][w];
                live_out[s][w] = out;
                live_in[s][w] = in;
            }
    }
    for (size_t s = 0; s < count; ++s)
        for (size_t w = 0; w < words; ++w)
            for (uint64_t bits = live_in[s][w] | live_out[s][w]; bits; bits &= bits - 1) {
                const uint32_t i = uint32_t(w * 64 + size_t(__builtin_ctzll(bits)));
                if (has(live_in[s], i)) found[i].cover(stretches[s].begin, stretches[s].begin);
                if (has(live_out[s], i)) found[i].cover(stretches[s].end, stretches[s].end);
            }
    return found;
}

}  // namespace

Allocation allocate_registers(const std::vector<Width> &registers,
                              const std::vector<RegisterUse> &uses,
                              const std::vector<Stretch> &stretches, uint32_t reserved) {
    const std::vector<Life> life = lives(registers.size(), uses, stretches);
    std::vector<uint32_t> order;
    for (uint32_t i = 0; i < registers.size(); ++i)
        if (life[i].begin <= life[i].end) order.push_back(i);
    std::sort(order.begin(), order.end(),
              [&](uint32_t a, uint32_t b) { return life[a].begin < life[b].begin; });
    // A linear scan; each width has memory of its own.
    Allocation result;
    result.places.assign(registers.size(), 0);
    result.bytes = reserved;
    for (const Width width : {Width::bit, Width::word, Width::pair}) {
        const uint32_t bytes = width == Width::bit    ? 4
                               : width == Width::word ? 4 * LANES
                                                      : 8 * LANES;
        result.bytes = (result.bytes + 127) / 128 * 128;
        std::set<std::pair<uint32_t, uint32_t>> live;  // (end, place)
        std::set<uint32_t> free;
        for (uint32_t i : order) {
            if (registers[i] != width) continue;
            while (!live.empty() && live.begin()->first < life[i].begin) {
                free.insert(live.begin()->second);
                live.erase(live.begin());
            }
            if (free.empty()) {
                free.insert(result.bytes);
                result.bytes += bytes;
            }
            result.places[i] = *free.begin();
            free.erase(free.begin());
            live.insert({life[i].end, result.places[i]});
        }
    }
    return result;
}

}  // namespace gpu
