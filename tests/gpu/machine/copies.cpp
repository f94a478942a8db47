// Asynchronous copies from global to shared memory: cp.async and its groups.
#include "access.h"
#include "elementwise.h"
#include "report.h"

namespace gpu {
namespace {

// Lanes of a mask that have the same value as its lowest.
uint32_t lanes_alike(uint32_t mask, const uint32_t *values) {
    uint32_t alike = 0;
    for (uint32_t rest = mask; rest; rest &= rest - 1)
        if (values[lowest(rest)] == values[lowest(mask)]) alike |= 1u << lowest(rest);
    return alike;
}

// How many bytes each lane reads; the others become zero.
void wanted_bytes(const Warp &w, const Instruction &i, uint32_t *wanted) {
    const uint32_t skipped = i.more ? w.bits(i.more[0]) : 0;
    for (uint32_t rest = w.active; rest; rest &= rest - 1) {
        const int lane = lowest(rest);
        wanted[lane] = i.c == NO_OPERAND ? i.count : w.at<uint32_t>(i.c)[lane];
        if (wanted[lane] > i.count)
            fault(FaultKind::out_of_bounds, w, lane,
                  "cp.async at " + place_of(w.block->running.program, i) + " of " +
                      std::to_string(i.count) + " bytes is to read " +
                      std::to_string(wanted[lane]));
        if (skipped >> lane & 1) wanted[lane] = 0;
    }
}

// Reads now and writes at the wait: until then the old bytes stay, and must not be accessed.
const Instruction *begin_copy(Warp &w, const Instruction &i) {
    uint32_t wanted[LANES];
    wanted_bytes(w, i, wanted);
    Addresses to = addresses_of(w, i.a, i.immediate, i.wide_address);
    Addresses from = addresses_of(w, i.b, i.offset_b, true);
    check_access(w, i, Space::shared, to, i.count, i.count, Access::copy);
    const uint32_t all = w.active;
    for (uint32_t rest = all; rest;) {
        w.active = lanes_alike(rest, wanted);
        rest &= ~w.active;
        const uint32_t bytes = wanted[lowest(w.active)];
        if (bytes)
            check_access(w, i, Space::global, from, bytes, i.count, Access::read);
        else
            check_alignment(w, i, from, i.count, i.count, Access::read);
    }
    w.active = all;
    for (uint32_t rest = all; rest; rest &= rest - 1) {
        const int lane = lowest(rest);
        PendingCopies &copies = w.block->copies[w.index * LANES + uint32_t(lane)];
        PendingCopy copy = {reinterpret_cast<char *>(to.of[lane]), i.count, copies.open_group, {}};
        memcpy(copy.data, reinterpret_cast<const char *>(from.of[lane]), wanted[lane]);
        copies.waiting.push_back(copy);
    }
    return &i + 1;
}

const Instruction *commit_group(Warp &w, const Instruction &i) {
    for (uint32_t rest = w.active; rest; rest &= rest - 1)
        ++w.block->copies[w.index * LANES + uint32_t(lowest(rest))].open_group;
    return &i + 1;
}

// Delivers all groups but the last `immediate`; -1: also what is in no group yet.
const Instruction *wait_groups(Warp &w, const Instruction &i) {
    SharedMemory &shared = w.block->shared;
    for (uint32_t rest = w.active; rest; rest &= rest - 1) {
        const int lane = lowest(rest);
        PendingCopies &copies = w.block->copies[w.index * LANES + uint32_t(lane)];
        while (!copies.waiting.empty()) {
            const PendingCopy &copy = copies.waiting.front();
            if (int64_t(copy.group) >= int64_t(copies.open_group) - i.immediate) break;
            memcpy(copy.to, copy.data, copy.bytes);
            shared.end_copy(w, lane, uint32_t(copy.to - shared.data()), copy.bytes);
            copies.waiting.pop_front();
        }
    }
    return &i + 1;
}

void cp(Selection &s) {
    if (!s.take("async")) s.refuse("bulk copies are not supported");
    s.counts_copies();
    if (s.has("bulk") || s.has("mbarrier")) s.refuse("it is not supported");
    if (s.take("commit_group")) return s.run({commit_group, commit_group});
    if (s.take("wait_all")) {
        s.instruction.immediate = -1;
        return s.run({wait_groups, wait_groups});
    }
    if (s.take("wait_group")) {
        s.instruction.immediate = int64_t(s.constant(0));
        return s.run({wait_groups, wait_groups});
    }
    s.take_one({"ca", "cg"});
    s.take("shared"), s.take("shared::cta"), s.take("global");
    s.take("L2::cache_hint"), s.take_one({"L2::64B", "L2::128B", "L2::256B"});
    s.address(0);
    s.copy_source(1);
    s.instruction.count = uint8_t(s.constant(2));
    s.shared_access(s.instruction.count);
    if (s.count() > 3) {
        if (s.declared(s.operand(3)) == Type::pred)
            s.more_source(s.operand(3), Type::pred);  // whether to ignore the source
        else
            s.source(&Instruction::c, 3, Type::b32);
    }
    s.run({begin_copy, begin_copy});
}

}  // namespace

void add_copies(Selectors &s) { s["cp"] = cp; }

}  // namespace gpu
