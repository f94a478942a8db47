// The state of the `simt` runtime, and what its reports are made of; see simt.cpp.
#pragma once

#include "fiber.h"
#include "simt.h"

#include <stdio.h>

#include <random>
#include <string>
#include <unordered_set>
#include <vector>

namespace simt {
namespace {

constexpr unsigned WARP = 32, STACK_BYTES = 256 * 1024, DEFAULT_SHARED_BYTES = 48 * 1024;

enum State { UNSTARTED, READY, AT_BARRIER, AT_WARP, ENDED };

struct Fiber {
    Context context;
    char *stack;
    int lane = -1;
};

// A copy that a lane has begun.
struct Copy {
    char *to;
    const char *from;
    int bytes, valid;
    unsigned group;
    const void *pc;
};

struct Lane {
    State state;
    Fiber *fiber;
    int line;                  // of the barrier or warp operation it waits at
    unsigned mask, source;     // of the warp operation
    unsigned long long value;  // given to the operation, then got from it
    unsigned warp_epoch;       // warp synchronisations passed
    std::vector<Copy> copies;  // that have not arrived
    unsigned groups;           // of copies, closed
};

// What happened to one byte of shared memory in this block, in the current barrier interval.
struct Byte {
    unsigned block = 0;  // serial number of the block that last wrote it
    unsigned write_epoch = 0, read_epoch = 0, write_warp_epoch = 0, read_warp_epoch = 0;
    int writer = -1, reader = -1;  // MANY readers are one
    const void *write_pc = nullptr, *read_pc = nullptr;
    unsigned copied_in = 0;  // serial number of the block in which a copy is on its way here
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

}  // namespace
}  // namespace simt
