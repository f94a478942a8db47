#include "races.h"

#include <algorithm>
#include <cstring>

#include "report.h"

namespace gpu {
namespace {

// A stamp: the launch, the block, and of a reader whether several blocks have read and whether the
// access was strong. Of the numbers, as many bits are kept as fit. If an access covered only some
// bytes of a word, each byte has stamps of its own, and the word's say only that the launch
// accessed it.
constexpr uint32_t LAUNCH = 0xff000000, BLOCK = 0x00fffff0, SEVERAL = 1, STRONG = 2, PARTS = 4;

uint32_t stamp_of(const Warp &warp) {
    const Block &block = *warp.block;
    return block.running.stamp | (uint32_t(block.number) << 4 & BLOCK);
}

uint32_t load(const uint32_t &word) { return __atomic_load_n(&word, __ATOMIC_RELAXED); }
void store(uint32_t &word, uint32_t value) { __atomic_store_n(&word, value, __ATOMIC_RELAXED); }

void note_page(const Warp &warp, uint64_t address) {
    const Running &running = warp.block->running;
    store(running.machine.memory.page_touched(address), running.stamp);
}

uint64_t block_of(uint32_t stamp) { return (stamp & BLOCK) >> 4; }

// Whether what another block did before is ordered before what this one does now.
bool ordered(const Warp &warp, uint32_t before) {
    const Block &block = *warp.block;
    if (block.running.released.empty() || block.acquired == 0) return false;
    const uint32_t released = load(block.running.released[block_of(before)]);
    return released != 0 && released <= block.acquired;
}

[[noreturn]] void report(const Warp &warp, int lane, const Instruction &at, uint64_t address,
                         uint32_t bytes, Access access, uint32_t other, const char *did) {
    const Running &running = warp.block->running;
    const Dim3 &grid = running.launch.grid;
    const uint64_t number = block_of(other);
    // Of several readers the first is recorded, which may be this block.
    const std::string block = number == block_of(stamp_of(warp))
                                  ? "another block"
                                  : "block (" + std::to_string(number % grid.x) + ", " +
                                        std::to_string(number / grid.x % grid.y) + ", " +
                                        std::to_string(number / grid.x / grid.y) + ")";
    fault(FaultKind::race, warp, lane,
          attempt(warp, at, bytes, access) + " races with " + block + ", which " + did +
              " the same memory in this launch: " + address_of(running, address, bytes));
}

// Checks and records an access to the word or the byte of `touched`.
void note(Warp &warp, int lane, const Instruction &at, Touched &touched, uint64_t address,
          uint32_t bytes, Access access) {
    const uint32_t own = stamp_of(warp), writer = load(touched.writer);
    const uint32_t reader = load(touched.reader);
    const bool strong = access == Access::atomic || at.strong;
    const bool other_wrote =
        (writer & LAUNCH) == (own & LAUNCH) && (writer & BLOCK) != (own & BLOCK);
    const bool both_strong = strong && (reader & STRONG) && (reader & LAUNCH) == (own & LAUNCH);
    if (access == Access::read) {
        if (other_wrote && !both_strong && !ordered(warp, writer))
            report(warp, lane, at, address, bytes, access, writer, "wrote");
        if ((reader & LAUNCH) != (own & LAUNCH))
            store(touched.reader, own | (strong ? STRONG : 0));
        else if ((reader & BLOCK) != (own & BLOCK))
            store(touched.reader, reader | SEVERAL);
        return;
    }
    // Strong accesses alone: the bytes are marked so, and they do not race among each other.
    if (both_strong) {
        store(touched.writer, own);
        return;
    }
    const bool other_read = (reader & LAUNCH) == (own & LAUNCH) && !(reader & STRONG) &&
                            ((reader & BLOCK) != (own & BLOCK) || (reader & SEVERAL));
    if (other_read && !ordered(warp, reader))
        report(warp, lane, at, address, bytes, access, reader, "read");
    if (other_wrote && !ordered(warp, writer)) {
        if (strong) report(warp, lane, at, address, bytes, access, writer, "wrote");
        warp.overwrites |= 1u << lane;
    }
    store(touched.writer, own);
    if (strong) store(touched.reader, own | STRONG);
}

// The same for the word at `word`, of which the access covers some bytes.
void note_word(Warp &warp, int lane, const Instruction &at, uint64_t word, uint64_t address,
               uint32_t bytes, Access access) {
    Memory &memory = warp.block->running.machine.memory;
    Touched &whole = *memory.touched(word), *const parts = memory.touched_byte(word);
    const uint32_t launch = stamp_of(warp) & LAUNCH;
    const auto in_parts = [&](uint32_t stamp) {
        return (stamp & LAUNCH) == launch && (stamp & PARTS);
    };
    const uint64_t begin = std::max(address, word), end = std::min(address + bytes, word + 4);
    if (!in_parts(load(whole.writer)) && !in_parts(load(whole.reader))) {
        if (end - begin == 4) return note(warp, lane, at, whole, address, bytes, access);
        std::fill(parts, parts + 4, whole);
    }
    for (uint64_t byte = begin; byte < end; ++byte) {
        Touched &part = parts[byte - word];
        note(warp, lane, at, part, address, bytes, access);
        if ((part.writer & LAUNCH) == launch) store(whole.writer, launch | PARTS);
        if ((part.reader & LAUNCH) == launch) store(whole.reader, launch | PARTS);
    }
}

// What a plain access needs: to be recorded, or a full check.
constexpr uint32_t NOTE = 1, ODD = 2;

template <bool WRITE> inline uint32_t to_do(uint32_t own, const Touched &touched) {
    constexpr uint32_t THIS_LAUNCH = ~LAUNCH + 1;  // what differs from `own` is less than this
    const uint32_t wrote = touched.writer ^ own, read = touched.reader ^ own;
    const uint32_t by_others = wrote - 1 < THIS_LAUNCH - 1 ? ODD : 0;  // or in parts
    if (WRITE) {
        const uint32_t was_read = read - 1 < THIS_LAUNCH - 1 ? ODD : 0;  // by others, or strongly
        return by_others | was_read | (wrote ? NOTE : 0);
    }
    const uint32_t odd = read < THIS_LAUNCH && (read & (STRONG | PARTS)) ? ODD : 0;
    const uint32_t known = read & SEVERAL ? BLOCK | SEVERAL | STRONG : STRONG;
    return by_others | odd | (read & ~known ? NOTE : 0);
}

// The same for some bytes of a word.
template <bool WRITE>
inline uint32_t to_do(uint32_t own, Memory &memory, uint64_t address, uint32_t bytes) {
    const Touched &whole = *memory.touched(address);
    const uint32_t all = to_do<WRITE>(own, whole);
    if (!all) return 0;
    const auto in_parts = [&](uint32_t stamp) {
        return ((stamp ^ own) & LAUNCH) == 0 && (stamp & PARTS);
    };
    if (!in_parts(whole.writer) && !in_parts(whole.reader)) return all;
    uint32_t parts = 0;
    for (uint32_t i = 0; i < bytes; ++i)
        parts |= to_do<WRITE>(own, *memory.touched_byte(address + i));
    return parts;
}

template <bool WRITE> uint32_t row_to_do(uint32_t own, const Touched *touched, uint32_t words) {
    uint32_t all = 0;
    for (uint32_t i = 0; i < words; ++i) all |= to_do<WRITE>(own, touched[i]);
    return all;
}

// Neighbouring words, none of them odd.
template <bool WRITE> void note_row(uint32_t own, Touched *touched, uint32_t words) {
    for (uint32_t i = 0; i < words; ++i) {
        if (WRITE) {
            touched[i].writer = own;
        } else {
            const uint32_t reader = touched[i].reader;
            const bool first = ((reader ^ own) & LAUNCH) != 0;
            const bool other = ((reader ^ own) & BLOCK) != 0;
            touched[i].reader = first ? own : other ? reader | SEVERAL : reader;
        }
    }
}

// Plain accesses to neighbouring whole words. Returns false if a full check is needed.
template <bool WRITE> bool note_row(const Warp &warp, const Addresses &addresses, uint32_t bytes) {
    const Running &running = warp.block->running;
    const uint32_t own = stamp_of(warp), words = uint32_t(LANES) * bytes / 4;
    Touched *touched = running.machine.memory.touched(addresses.of[0]);
    uint32_t all = row_to_do<WRITE>(own, touched, words);
    if (all == 0) return true;
    // Readers have not locked the page: most reads were recorded before.
    PageLocks alone;
    if (!WRITE && !(all & ODD) && running.concurrent) {
        alone.lock(addresses.of, ENDS);
        all = row_to_do<WRITE>(own, touched, words);
    }
    if (all & ODD) return false;
    note_row<WRITE>(own, touched, words);
    note_page(warp, addresses.of[0]), note_page(warp, addresses.of[LANES - 1]);
    return true;
}

// The lanes whose words need a full check.
template <bool WRITE>
uint32_t lanes_to_do(const Warp &warp, uint32_t lanes, const Addresses &addresses, uint32_t bytes) {
    Memory &memory = warp.block->running.machine.memory;
    const uint32_t own = stamp_of(warp);
    uint32_t found = 0;
    for (uint32_t rest = lanes; rest; rest &= rest - 1) {
        const uint64_t address = addresses.of[lowest(rest)];
        uint32_t all = 0;
        if (bytes < 4)
            all = to_do<WRITE>(own, memory, address, bytes);
        else
            all = row_to_do<WRITE>(own, memory.touched(address), bytes / 4);
        found |= all ? rest & -rest : 0;
    }
    return found;
}

void note_lanes(Warp &warp, const Instruction &at, uint32_t lanes, const Addresses &addresses,
                uint32_t bytes, Access access) {
    Running &running = warp.block->running;
    PageLocks alone;
    if (access == Access::read && running.concurrent) alone.lock(addresses.of, lanes);
    for (uint32_t rest = lanes; rest; rest &= rest - 1) {
        const int lane = lowest(rest);
        const uint64_t address = addresses.of[lane];
        note_page(warp, address);
        for (uint64_t word = address & ~uint64_t(3); word < address + bytes; word += 4)
            note_word(warp, lane, at, word, address, bytes, access);
    }
}

// Up to 16 marks, all of them 1.
bool all_marked(const uint8_t *marks, uint32_t bytes) {
    constexpr uint64_t ONES = 0x0101010101010101;
    uint64_t low, high = ONES;
    memcpy(&low, marks, 8);
    if (bytes > 8) memcpy(&high, marks + 8, 8);
    const uint32_t last = (bytes - 1) % 8;
    const uint64_t last_ones = ONES >> 8 * (7 - last);
    return bytes > 8 ? low == ONES && (high & last_ones) == last_ones
                     : (low & last_ones) == last_ones;
}

[[noreturn]] void report_unwritten(const Warp &warp, int lane, const Instruction &at,
                                   uint64_t address, uint32_t bytes, Access access) {
    fault(FaultKind::unwritten, warp, lane,
          attempt(warp, at, bytes, access) + " reads memory that nobody has written: " +
              address_of(warp.block->running, address, bytes));
}

// Marks what is written, and checks that what is read was.
void note_marks(const Warp &warp, const Instruction &at, uint32_t lanes, const Addresses &addresses,
                uint32_t bytes, Access access) {
    Memory &memory = warp.block->running.machine.memory;
    const bool row = lanes == ALL && addresses.shape == Shape::row;
    const bool write = access == Access::write;
    if (row && write) {
        memset(memory.marks(addresses.of[0]), 1, size_t(LANES) * bytes);
        return;
    }
    if (row && !memchr(memory.marks(addresses.of[0]), 0, size_t(LANES) * bytes)) return;
    const uint32_t needed = std::min<uint32_t>(bytes, at.needed);
    for (uint32_t rest = lanes; rest; rest &= rest - 1) {
        const int lane = lowest(rest);
        uint8_t *marks = memory.marks(addresses.of[lane]);
        if (write)
            memset(marks, 1, bytes);
        else if (!all_marked(marks, needed))
            report_unwritten(warp, lane, at, addresses.of[lane], bytes, access);
    }
}

// The first of neighbouring lanes that access the same.
uint32_t different(uint32_t lanes, const Addresses &addresses) {
    const uint32_t alike =
        bits_where([&](int l) { return addresses.of[l] == addresses.of[l ? l - 1 : 0]; });
    return lanes & ~(alike & lanes << 1);
}

// What a warp writes after another one's release, with no barrier between, is not released.
void note_write(Warp &warp) {
    Block &block = *warp.block;
    warp.wrote = true;
    if (block.releasing >= 0 && block.releasing != int(warp.index))
        store(block.running.released[block.number & (BLOCK >> 4)], 0);
}

}  // namespace

void note_global(Warp &warp, const Instruction &at, const Array &array, uint32_t lanes,
                 const Addresses &addresses, uint32_t bytes, Access access) {
    const Running &running = warp.block->running;
    const bool row = lanes == ALL && addresses.shape == Shape::row;
    const bool write = access == Access::write;
    const uint32_t firsts = addresses.shape == Shape::same ? 1
                            : row                          ? lanes
                                                           : different(lanes, addresses);
    if (!array.whole) note_marks(warp, at, firsts, addresses, bytes, access);
    if (!running.several_blocks) return;
    if (at.strong) note_strong(warp);
    if (write && !running.released.empty()) note_write(warp);
    const bool plain = (access == Access::read || write) && !at.strong;
    if (!plain) return note_lanes(warp, at, lanes, addresses, bytes, access);
    if (row && addresses.of[0] % 4 == 0 &&
        (write ? note_row<true>(warp, addresses, bytes) : note_row<false>(warp, addresses, bytes)))
        return;
    const uint32_t rest = write ? lanes_to_do<true>(warp, firsts, addresses, bytes)
                                : lanes_to_do<false>(warp, firsts, addresses, bytes);
    if (!rest) return;
    note_lanes(warp, at, rest, addresses, bytes, access);
    // All lanes that store there: the block's own record hides the other block's from later lanes.
    for (uint32_t over = warp.overwrites & lanes; over; over &= over - 1)
        warp.overwrites |= lanes & bits_where([&](int l) {
                               return addresses.of[l] == addresses.of[lowest(over)];
                           });
}

void report_overwrite(const Warp &warp, int lane, const Instruction &at, uint64_t address,
                      uint32_t bytes) {
    fault(FaultKind::race, warp, lane,
          attempt(warp, at, bytes, Access::write) +
              " races with another block, which wrote another value in this launch: " +
              address_of(warp.block->running, address, bytes));
}

void note_fence(Warp &warp) { warp.block->fenced = true; }

void note_strong(Warp &warp) {
    Block &block = *warp.block;
    Running &running = block.running;
    if (running.released.empty()) return;
    const uint32_t now = 1 + running.synchronisations++;
    block.acquired = now;
    bool all_ordered = block.fenced;
    for (const Warp &other : block.warps) all_ordered &= &other == &warp || !other.wrote;
    if (!all_ordered) return;
    store(running.released[block.number & (BLOCK >> 4)], now);
    block.releasing = int(warp.index);
}

namespace {

// Adds bytes to the spans from number `first` on.
void add(std::vector<Span> &spans, size_t first, Span more, uint64_t gap) {
    if (spans.size() > first && more.begin - spans.back().end <= gap)
        spans.back().end = more.end;
    else
        spans.push_back(more);
}

}  // namespace

std::vector<Span> touched(Machine &machine, const Array &array, uint64_t gap) {
    Memory &memory = machine.memory;
    std::vector<Span> spans;
    for (const bool write : {true, false}) {
        const size_t first = spans.size();
        for (uint64_t page = array.begin; page < array.end; page += Memory::PAGE) {
            if (memory.page_touched(page) != machine.stamp) continue;
            const Touched *words = memory.touched(page);
            const uint64_t count = (std::min(Memory::PAGE, array.end - page) + 3) / 4;
            const auto is_touched = [&](uint64_t i) {
                return ((write ? words[i].writer : words[i].reader) & LAUNCH) == machine.stamp;
            };
            uint32_t found = 0;
            for (uint64_t i = 0; i < count; ++i) found += is_touched(i);
            if (found == count) {
                add(spans, first, {page, page + 4 * count, write}, gap);
                continue;
            }
            for (uint64_t i = 0; i < count && found; ++i)
                if (is_touched(i))
                    add(spans, first, {page + 4 * i, page + 4 * i + 4, write}, gap), --found;
        }
    }
    return spans;
}

}  // namespace gpu
