#include "races.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <thread>

#include "report.h"

namespace gpu {
namespace {

// A stamp: the launch, the block, and of a reader whether several blocks have read and whether the
// access was strong. Numbers are kept as far as they fit. Where an access took only some bytes of a
// word, each byte has stamps of its own, and the word's say only that the launch touched it.
constexpr uint32_t LAUNCH = 0xff000000, BLOCK = 0x00fffff0, SEVERAL = 1, STRONG = 2, PARTS = 4;

uint32_t stamp_of(const Warp &warp) {
    const Block &block = *warp.block;
    return block.running.stamp | (uint32_t(block.number) << 4 & BLOCK);
}

uint32_t load(const uint32_t &word) { return __atomic_load_n(&word, __ATOMIC_RELAXED); }
void store(uint32_t &word, uint32_t value) { __atomic_store_n(&word, value, __ATOMIC_RELAXED); }

uint64_t block_of(uint32_t stamp) { return (stamp & BLOCK) >> 4; }

// Keeps the words of up to a page to one host thread while it checks and notes them: two blocks
// that checked the same word before either had noted it would not see each other.
class Alone {
  public:
    Alone(uint64_t address, uint64_t bytes) {
        const uint64_t one = page(address), other = page(address + bytes - 1);
        first_ = std::min(one, other), last_ = std::max(one, other);
        lock(first_);
        if (last_ != first_) lock(last_);
    }
    ~Alone() {
        if (last_ != first_) unlock(last_);
        unlock(first_);
    }
    Alone(const Alone &) = delete;

  private:
    static constexpr uint64_t PAGES = 1024;
    static inline std::atomic<bool> locked_[PAGES];

    static uint64_t page(uint64_t address) { return (address >> 12) % PAGES; }
    static void lock(uint64_t page) {
        while (locked_[page].exchange(true, std::memory_order_acquire)) std::this_thread::yield();
    }
    static void unlock(uint64_t page) { locked_[page].store(false, std::memory_order_release); }

    uint64_t first_, last_;
};

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
    const std::string block = "(" + std::to_string(number % grid.x) + ", " +
                              std::to_string(number / grid.x % grid.y) + ", " +
                              std::to_string(number / grid.x / grid.y) + ")";
    fault(FaultKind::race, warp, lane,
          attempt(warp, at, bytes, access) + " races with block " + block + ", which " + did +
              " the same memory in this launch: " + address_of(running, address, bytes));
}

// Checks an access to what `touched` is about, a whole word or one byte, and notes it.
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

// The same of a word at `word` that the access has bytes of.
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

// A warp's accesses next to each other, to words that nobody else touched: the common case.
bool note_row(Warp &warp, Touched *touched, uint32_t words, Access access) {
    const uint32_t own = stamp_of(warp), mine = LAUNCH | BLOCK;
    uint32_t foreign = 0;
    for (uint32_t i = 0; i < words; ++i) {
        const uint32_t writer = touched[i].writer, reader = touched[i].reader;
        const bool any_writer = ((writer ^ own) & LAUNCH) == 0;
        const bool any_reader = ((reader ^ own) & LAUNCH) == 0;
        const bool others_writer = any_writer && (((writer ^ own) & BLOCK) || (writer & PARTS));
        const bool others_reader =
            any_reader && (((reader ^ own) & mine) != 0 || (reader & SEVERAL));
        const bool special = any_reader && (reader & (STRONG | PARTS));
        foreign |= others_writer | special | (access == Access::write && others_reader);
    }
    if (foreign) return false;
    if (access == Access::write) {
        for (uint32_t i = 0; i < words; ++i) touched[i].writer = own;
    } else {
        for (uint32_t i = 0; i < words; ++i) {
            const uint32_t reader = touched[i].reader;
            const bool first = ((reader ^ own) & LAUNCH) != 0;
            const bool other = ((reader ^ own) & BLOCK) != 0;
            touched[i].reader = first ? own : other ? reader | SEVERAL : reader;
        }
    }
    return true;
}

void check_written(Warp &warp, int lane, const Instruction &at, uint64_t address, uint32_t bytes,
                   Access access) {
    const Running &running = warp.block->running;
    const uint32_t needed = std::min<uint32_t>(bytes, at.needed);
    if (memchr(running.machine.memory.marks(address), 0, needed))
        fault(FaultKind::unwritten, warp, lane,
              attempt(warp, at, bytes, access) +
                  " reads memory that nobody has written: " + address_of(running, address, bytes));
}

}  // namespace

void note_global(Warp &warp, const Instruction &at, const Array &array, uint32_t lanes,
                 const Addresses &addresses, uint32_t bytes, Access access) {
    Running &running = warp.block->running;
    Memory &memory = running.machine.memory;
    const bool row = lanes == ALL && addresses.row;
    if (!array.whole) {
        if (row && access == Access::write) {
            memset(memory.marks(addresses.of[0]), 1, size_t(LANES) * bytes);
        } else if (!row || memchr(memory.marks(addresses.of[0]), 0, size_t(LANES) * bytes)) {
            for (uint32_t rest = lanes; rest; rest &= rest - 1) {
                const int lane = lowest(rest);
                if (access == Access::write)
                    memset(memory.marks(addresses.of[lane]), 1, bytes);
                else
                    check_written(warp, lane, at, addresses.of[lane], bytes, access);
            }
        }
    }
    if (!running.several_blocks) return;
    if (at.strong) note_strong(warp);
    const bool plain = access == Access::read || access == Access::write;
    if (row && plain && !at.strong && bytes >= 4) {
        const Alone alone(addresses.of[0], uint64_t(LANES) * bytes);
        Touched *touched = memory.touched(addresses.of[0]);
        if (note_row(warp, touched, uint32_t(LANES) * bytes / 4, access)) return;
    }
    for (uint32_t rest = lanes; rest; rest &= rest - 1) {
        const int lane = lowest(rest);
        const uint64_t address = addresses.of[lane];
        const Alone alone(address, bytes);
        for (uint64_t word = address & ~uint64_t(3); word < address + bytes; word += 4)
            note_word(warp, lane, at, word, address, bytes, access);
    }
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
    if (block.fenced) store(running.released[block.number & (BLOCK >> 4)], now);
}

std::vector<Span> touched(Machine &machine, const Array &array, uint64_t gap) {
    std::vector<Span> spans;
    for (const bool write : {true, false}) {
        bool open = false;
        for (uint64_t at = array.begin; at < array.end; at += 4) {
            const Touched &word = *machine.memory.touched(at);
            if (((write ? word.writer : word.reader) & LAUNCH) != machine.stamp) continue;
            if (open && at - spans.back().end <= gap) {
                spans.back().end = at + 4;
            } else {
                spans.push_back({at, at + 4, write});
                open = true;
            }
        }
    }
    return spans;
}

}  // namespace gpu
