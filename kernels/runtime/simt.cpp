// The `simt` target's runtime: a CUDA block on a CPU, with every lane a fiber.
//
// A block's lanes run one at a time, in forward, reverse or seeded random order, until they end or
// come to a barrier or a warp operation. When all that can run have run, those whose partners have
// all arrived go on. What cannot be is reported: lanes that ended or wait elsewhere while others
// wait at a barrier, a warp operation that a lane of its mask does not take part in, a deadlock.
//
// A fiber runs lane after lane and is left behind, suspended, only where a lane must wait; so a
// kernel without barriers runs as a plain loop on one fiber.
//
// Every load and store of a kernel is checked. Kernels are compiled with -fsanitize=thread, which
// makes the compiler call __tsan_read4(address) and the like; they are ours, not the sanitizer's:
//   global memory   must lie in an array that the launch was given
//   shared memory   (the library's static variables and the dynamic block) must be written before
//                   it is read; and between two barriers a byte that one lane writes must not be
//                   touched by another, unless a __syncwarp of their warp lies between
//   the stack       must be the lane's own
#include "fiber.h"
#include "simt.h"

#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <algorithm>
#include <random>
#include <string>
#include <unordered_set>
#include <vector>

namespace simt {

Registers registers;

namespace {

constexpr unsigned WARP = 32, STACK_BYTES = 256 * 1024, DEFAULT_SHARED_BYTES = 48 * 1024;

enum State { UNSTARTED, READY, AT_BARRIER, AT_WARP, ENDED };

struct Fiber {
    Context context;
    char *stack;
    int lane = -1;
};

struct Lane {
    State state;
    Fiber *fiber;
    int line;                  // of the barrier or warp operation it waits at
    unsigned mask, source;     // of the warp operation
    unsigned long long value;  // given to the operation, then got from it
    unsigned warp_epoch;       // warp synchronisations passed
};

// What happened to one byte of shared memory in this block, in the current barrier interval.
struct Byte {
    unsigned block = 0;  // serial number of the block that last wrote it
    unsigned write_epoch = 0, read_epoch = 0, write_warp_epoch = 0, read_warp_epoch = 0;
    int writer = -1, reader = -1;  // MANY readers are one
    const void *write_pc = nullptr, *read_pc = nullptr;
};
constexpr int MANY = -2;

struct Range {
    const char *begin, *end;
    bool has(const char *p, size_t size) const { return p >= begin && p + size <= end; }
};

struct Machine {
    const Launch *launch;
    void (*body)(void *);
    void *context;
    Context scheduler;
    std::vector<Lane> lanes;
    std::vector<unsigned> order;
    size_t next_unstarted;
    std::vector<Fiber *> all, free;
    Fiber *running = nullptr;
    std::mt19937_64 random;
    std::string fault;

    Range statics;                 // the library's writable segment: static shared memory
    std::vector<Range> constants;  // its read-only segments
    const char *base;              // where the library is loaded
    std::vector<char> dynamic;
    std::vector<Byte> static_bytes, dynamic_bytes;
    std::unordered_set<const char *> used;  // bytes of static shared memory in this block
    unsigned block_serial = 0, epoch = 0;
};
Machine *machine = nullptr;

std::string lane_list(const std::vector<unsigned> &lanes) {
    std::string text = lanes.size() == 1 ? "lane " : "lanes ";
    for (size_t i = 0; i < lanes.size(); ++i) {
        size_t last = i;
        while (last + 1 < lanes.size() && lanes[last + 1] == lanes[last] + 1) ++last;
        text += (i ? ", " : "") + std::to_string(lanes[i]);
        if (last > i) text += "-" + std::to_string(lanes[last]);
        i = last;
    }
    return text;
}

std::string where() {
    const dim3 &b = registers.block;
    return std::string(machine->launch->kernel) + ", block (" + std::to_string(b.x) + ", " +
           std::to_string(b.y) + ", " + std::to_string(b.z) + ")";
}

std::string code(const void *address) {
    char text[40];
    snprintf(text, sizeof text, "{%#zx}", size_t((const char *)address - machine->base) - 1);
    return text;
}

void to_scheduler() { switch_to(machine->running->context, machine->scheduler); }

// Keeps the first fault; from a lane, leaves the block for good.
void fail(const std::string &text) {
    if (machine->fault.empty()) machine->fault = text;
    if (machine->running) to_scheduler();
}

void enter(unsigned lane) {
    machine->running->lane = int(lane);
    machine->lanes[lane].fiber = machine->running;
    registers.thread = {lane, 0, 0};
}

// A fiber's life: run lanes that have not started, one after the other.
void fiber_main() {
    arrive(machine->scheduler);
    for (;;) {
        while (machine->next_unstarted < machine->order.size()) {
            const unsigned lane = machine->order[machine->next_unstarted++];
            enter(lane);
            machine->lanes[lane].state = READY;
            machine->body(machine->context);
            machine->lanes[machine->running->lane].state = ENDED;
        }
        machine->running->lane = -1;
        machine->free.push_back(machine->running);
        to_scheduler();
    }
}

Fiber *make_fiber() {
    Fiber *fiber = new Fiber;
    fiber->stack = static_cast<char *>(mmap(nullptr, STACK_BYTES, PROT_READ | PROT_WRITE,
                                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    prepare(fiber->context, fiber->stack, STACK_BYTES, fiber_main);
    machine->all.push_back(fiber);
    return fiber;
}

void resume(Fiber *fiber) {
    machine->running = fiber;
    if (fiber->lane >= 0) registers.thread = {unsigned(fiber->lane), 0, 0};
    switch_to(machine->scheduler, fiber->context);
    machine->running = nullptr;
}

std::vector<unsigned> lanes_where(bool (*chosen)(const Lane &, int), int argument = 0) {
    std::vector<unsigned> found;
    for (unsigned i = 0; i < machine->lanes.size(); ++i)
        if (chosen(machine->lanes[i], argument)) found.push_back(i);
    return found;
}

// Releases one warp operation whose lanes have all arrived, or says why it never will.
bool release_warp(unsigned first) {
    std::vector<Lane> &lanes = machine->lanes;
    bool released = false;
    for (unsigned leader = first; leader < std::min<size_t>(first + WARP, lanes.size()); ++leader) {
        if (lanes[leader].state != AT_WARP) continue;
        const unsigned mask = lanes[leader].mask;
        bool complete = true;
        for (unsigned i = 0; i < WARP; ++i) {
            if (!(mask >> i & 1)) continue;
            const Lane *lane = first + i < lanes.size() ? &lanes[first + i] : nullptr;
            complete = complete && lane && lane->state == AT_WARP && lane->mask == mask &&
                       lane->line == lanes[leader].line;
        }
        if (!complete) continue;
        unsigned long long values[WARP];
        for (unsigned i = 0; i < WARP; ++i)
            if (mask >> i & 1) values[i] = lanes[first + i].value;
        for (unsigned i = 0; i < WARP; ++i) {
            if (!(mask >> i & 1)) continue;
            Lane &lane = lanes[first + i];
            if (!(mask >> lane.source & 1)) {
                fail(where() + ": lane " + std::to_string(first + i) +
                     " asks in a shuffle for lane " + std::to_string(first + lane.source) +
                     ", which is not in the mask (line " + std::to_string(lane.line) + ")");
                return false;
            }
            lane.value = values[lane.source];
            lane.state = READY;
            ++lane.warp_epoch;
        }
        released = true;
    }
    return released;
}

void release_barrier() {
    const auto waiting = lanes_where([](const Lane &l, int) { return l.state == AT_BARRIER; });
    const auto ended = lanes_where([](const Lane &l, int) { return l.state == ENDED; });
    const auto at_warp = lanes_where([](const Lane &l, int) { return l.state == AT_WARP; });
    if (!at_warp.empty()) {
        const Lane &lane = machine->lanes[at_warp[0]];
        char mask[16];
        snprintf(mask, sizeof mask, "0x%08x", lane.mask);
        fail(where() + ": " + lane_list(at_warp) + " wait in a warp operation with mask " + mask +
             " (line " + std::to_string(lane.line) +
             ") that not all lanes of the mask take part in");
        return;
    }
    const int line = machine->lanes[waiting[0]].line;
    const auto here = lanes_where(
        [](const Lane &l, int at) { return l.state == AT_BARRIER && l.line == at; }, line);
    if (!ended.empty() || here.size() != waiting.size()) {
        const auto elsewhere = lanes_where(
            [](const Lane &l, int at) { return l.state == AT_BARRIER && l.line != at; }, line);
        fail(where() + ": " + lane_list(here) + " wait at the barrier in line " +
             std::to_string(line) + " while " +
             (ended.empty() ? lane_list(elsewhere) + " wait at the one in line " +
                                  std::to_string(machine->lanes[elsewhere[0]].line)
                            : lane_list(ended) + " have returned"));
        return;
    }
    for (unsigned i : waiting) machine->lanes[i].state = READY;
    ++machine->epoch;
}

void arrange() {
    const int kind = machine->launch->order;
    for (unsigned i = 0; i < machine->order.size(); ++i) machine->order[i] = i;
    if (kind == REVERSE) std::reverse(machine->order.begin(), machine->order.end());
    if (kind == RANDOM) std::shuffle(machine->order.begin(), machine->order.end(), machine->random);
}

void run_block() {
    Machine &m = *machine;
    m.lanes.assign(m.launch->threads, Lane{});
    m.order.resize(m.launch->threads);
    m.next_unstarted = 0;
    m.used.clear();
    ++m.block_serial;
    ++m.epoch;
    arrange();
    while (m.next_unstarted < m.order.size() && m.fault.empty()) {
        if (m.free.empty()) m.free.push_back(make_fiber());
        Fiber *fiber = m.free.back();
        m.free.pop_back();
        resume(fiber);
    }
    while (m.fault.empty()) {
        bool any = false;
        for (size_t i = 0; i < m.order.size() && m.fault.empty(); ++i) {
            Lane &lane = m.lanes[m.order[i]];
            if (lane.state != READY) continue;
            any = true;
            resume(lane.fiber);
        }
        if (!m.fault.empty()) return;
        for (unsigned first = 0; first < m.lanes.size(); first += WARP)
            any = release_warp(first) || any;
        if (any) continue;
        if (std::all_of(m.lanes.begin(), m.lanes.end(),
                        [](const Lane &l) { return l.state == ENDED; }))
            return;
        release_barrier();
        if (m.launch->order == RANDOM) arrange();
    }
}

void find_segments(const void *code_address) {
    struct Search {
        const char *address;
        Machine *m;
    } search{static_cast<const char *>(code_address), machine};
    dl_iterate_phdr(
        [](dl_phdr_info *info, size_t, void *data) {
            Search &s = *static_cast<Search *>(data);
            const char *base = reinterpret_cast<const char *>(info->dlpi_addr);
            bool mine = false;
            for (int i = 0; i < info->dlpi_phnum; ++i) {
                const auto &p = info->dlpi_phdr[i];
                const Range range{base + p.p_vaddr, base + p.p_vaddr + p.p_memsz};
                mine = mine || (p.p_type == PT_LOAD && range.has(s.address, 1));
            }
            if (!mine) return 0;
            s.m->base = base;
            for (int i = 0; i < info->dlpi_phnum; ++i) {
                const auto &p = info->dlpi_phdr[i];
                if (p.p_type != PT_LOAD) continue;
                const Range range{base + p.p_vaddr, base + p.p_vaddr + p.p_memsz};
                if (p.p_flags & PF_W)
                    s.m->statics = range;
                else
                    s.m->constants.push_back(range);
            }
            return 1;
        },
        &search);
}

std::string describe(const char *address, size_t size, bool write, const void *pc) {
    return where() + ", lane " + std::to_string(registers.thread.x) + ": " +
           (write ? "write" : "read") + " of " + std::to_string(size) + " bytes at " + code(pc);
}

void check_shared(Byte *bytes, const char *address, size_t size, bool write, const void *pc) {
    Machine &m = *machine;
    const int lane = m.running->lane;
    const unsigned warp_epoch = m.lanes[lane].warp_epoch;
    const auto apart = [&](int other, unsigned then_epoch, unsigned then_warp_epoch) {
        if (then_epoch != m.epoch || other == lane || other == -1) return true;
        return other >= 0 && other / int(WARP) == lane / int(WARP) && then_warp_epoch != warp_epoch;
    };
    for (size_t i = 0; i < size; ++i) {
        Byte &b = bytes[i];
        const bool written = b.block == m.block_serial;
        if (!write && !written)
            return fail(describe(address, size, write, pc) +
                        " of shared memory that no lane of the block has written");
        if (written && !apart(b.writer, b.write_epoch, b.write_warp_epoch))
            return fail(describe(address, size, write, pc) + " races in shared memory with lane " +
                        std::to_string(b.writer) + ", which wrote it at " + code(b.write_pc) +
                        " since the last barrier");
        if (write && b.read_epoch == m.epoch && !apart(b.reader, b.read_epoch, b.read_warp_epoch))
            return fail(describe(address, size, write, pc) + " races in shared memory with " +
                        (b.reader == MANY ? "several lanes" : "lane " + std::to_string(b.reader)) +
                        ", which read it at " + code(b.read_pc) + " since the last barrier");
        if (write) {
            b.block = m.block_serial;
            b.writer = lane, b.write_epoch = m.epoch, b.write_warp_epoch = warp_epoch;
            b.write_pc = pc;
        } else {
            const bool first = b.read_epoch != m.epoch || b.reader == lane || b.reader == -1;
            b.reader = first ? lane : MANY;
            b.read_epoch = m.epoch, b.read_warp_epoch = warp_epoch;
            b.read_pc = pc;
        }
    }
}

void check(const void *where_to, size_t size, bool write, const void *pc) {
    if (!machine || !machine->running) return;
    Machine &m = *machine;
    const long long offset = static_cast<const char *>(pc) - m.base;
    if (m.launch->visited && offset < m.launch->visited_bytes) m.launch->visited[offset] = 1;
    const char *address = static_cast<const char *>(where_to);
    const Fiber &fiber = *m.running;
    if (Range{fiber.stack, fiber.stack + STACK_BYTES}.has(address, size)) return;
    for (int i = 0; i < m.launch->arguments; ++i) {
        const Argument &a = m.launch->argument[i];
        if (Range{a.begin, a.begin + a.bytes}.has(address, size)) return;
    }
    if (m.statics.has(address, size)) {
        for (size_t i = 0; i < size; ++i) m.used.insert(address + i);
        if (m.used.size() + m.launch->shared_bytes >
            std::max(DEFAULT_SHARED_BYTES, m.launch->shared_bytes))
            return fail(where() + ": uses more than 48 KiB of shared memory at " + code(pc));
        return check_shared(&m.static_bytes[address - m.statics.begin], address, size, write, pc);
    }
    const char *dynamic = m.dynamic.data();
    if (Range{dynamic, dynamic + m.dynamic.size()}.has(address, size))
        return check_shared(&m.dynamic_bytes[address - dynamic], address, size, write, pc);
    const char *state = reinterpret_cast<const char *>(&registers);
    if (Range{state, state + sizeof registers}.has(address, size)) return;
    for (const Range &range : m.constants)
        if (!write && range.has(address, size)) return;
    std::string nearest = "outside every array of the launch";
    long long distance = 1 << 16;
    for (int i = 0; i < m.launch->arguments; ++i) {
        const Argument &a = m.launch->argument[i];
        const long long past = address + size - (a.begin + a.bytes), before = a.begin - address;
        const long long off = past > 0 ? past : before;
        if (off >= distance) continue;
        distance = off;
        nearest = std::to_string(off) + " bytes " +
                  (past > 0 ? "past the end" : "before the start") + " of `" + a.name + "` (" +
                  std::to_string(a.bytes) + " bytes)";
    }
    fail(describe(address, size, write, pc) + " is out of bounds, " + nearest);
}

void wait(State state, int line, unsigned mask, unsigned source, unsigned long long value) {
    Lane &lane = machine->lanes[machine->running->lane];
    lane.state = state, lane.line = line;
    lane.mask = mask, lane.source = source, lane.value = value;
    to_scheduler();
}

}  // namespace

const char *run(const Launch &launch, void (*body)(void *), void *context, const void *code) {
    static Machine held;  // its fibers serve every launch; after a fault they are abandoned
    static std::string message;
    machine = &held;
    held.launch = &launch, held.body = body, held.context = context;
    held.fault.clear();
    held.random.seed(launch.seed);
    held.statics = Range{nullptr, nullptr};
    held.constants.clear();
    find_segments(code);
    held.static_bytes.assign(held.statics.end - held.statics.begin, Byte{});
    held.dynamic.assign(launch.shared_bytes, char(0xff));
    held.dynamic_bytes.assign(launch.shared_bytes, Byte{});
    registers.grid_size = {launch.grid[0], launch.grid[1], launch.grid[2]};
    registers.block_size = {launch.threads, 1, 1};

    const long long blocks = (long long)launch.grid[0] * launch.grid[1] * launch.grid[2];
    std::vector<long long> blocks_in_order;
    if (launch.order != FORWARD) {
        blocks_in_order.resize(blocks);
        for (long long i = 0; i < blocks; ++i) blocks_in_order[i] = i;
        if (launch.order == REVERSE) std::reverse(blocks_in_order.begin(), blocks_in_order.end());
        if (launch.order == RANDOM)
            std::shuffle(blocks_in_order.begin(), blocks_in_order.end(), held.random);
    }
    for (long long i = 0; i < blocks && held.fault.empty(); ++i) {
        const long long block = launch.order == FORWARD ? i : blocks_in_order[i];
        registers.block = {unsigned(block % launch.grid[0]),
                           unsigned(block / launch.grid[0] % launch.grid[1]),
                           unsigned(block / launch.grid[0] / launch.grid[1])};
        run_block();
    }
    machine = nullptr;
    if (held.fault.empty()) return nullptr;
    for (Fiber *fiber : held.all) {
        forget(fiber->context);
        munmap(fiber->stack, STACK_BYTES);
        delete fiber;
    }
    held.all.clear();
    held.free.clear();
    message = held.fault;
    return message.c_str();
}

void barrier(int line) { wait(AT_BARRIER, line, 0, 0, 0); }

unsigned long long exchange(int line, unsigned mask, unsigned source, unsigned long long value) {
    const unsigned self = machine->running->lane % WARP;
    if (!(mask >> self & 1)) {
        fail(where() + ": lane " + std::to_string(machine->running->lane) +
             " calls a warp operation whose mask it is not in (line " + std::to_string(line) + ")");
    }
    wait(AT_WARP, line, mask, source, value);
    return machine->lanes[machine->running->lane].value;
}

unsigned ballot(int line, unsigned mask, bool value) {
    // One exchange per lane of the mask: slow and obvious.
    unsigned votes = 0;
    for (unsigned i = 0; i < WARP; ++i)
        if (mask >> i & 1) votes |= unsigned(exchange(line, mask, i, value)) << i;
    return votes;
}

char *dynamic_shared() { return machine->dynamic.data(); }

}  // namespace simt

// ---- what -fsanitize=thread makes a kernel call ------------------------------------------------

#define PC __builtin_return_address(0)
#define ACCESS(size)                                                               \
    void __tsan_read##size(void *p) { simt::check(p, size, false, PC); }           \
    void __tsan_write##size(void *p) { simt::check(p, size, true, PC); }           \
    void __tsan_unaligned_read##size(void *p) { simt::check(p, size, false, PC); } \
    void __tsan_unaligned_write##size(void *p) { simt::check(p, size, true, PC); } \
    void __tsan_volatile_read##size(void *p) { simt::check(p, size, false, PC); }  \
    void __tsan_volatile_write##size(void *p) { simt::check(p, size, true, PC); }

extern "C" {
ACCESS(1)
ACCESS(2)
ACCESS(4)
ACCESS(8)
ACCESS(16)
void __tsan_read_range(void *p, size_t size) { simt::check(p, size, false, PC); }
void __tsan_write_range(void *p, size_t size) { simt::check(p, size, true, PC); }
void __tsan_init() {}
void __tsan_func_entry(void *) {}
void __tsan_func_exit() {}
void *__tsan_memcpy(void *to, const void *from, size_t size) {
    simt::check(from, size, false, PC);
    simt::check(to, size, true, PC);
    return memcpy(to, from, size);
}
void *__tsan_memset(void *to, int value, size_t size) {
    simt::check(to, size, true, PC);
    return memset(to, value, size);
}
}
