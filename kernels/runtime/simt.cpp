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
// Every load and store of a kernel is checked: simt_access.h.
#include "simt_access.h"
#include "simt_copies.h"
#include "simt_machine.h"

#include <stdlib.h>
#include <sys/mman.h>

#include <algorithm>

namespace simt {

Registers registers;

namespace {

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
