// Barriers and fences: bar, barrier, membar, fence.
#include "collective.h"
#include "elementwise.h"
#include "races.h"

namespace gpu {
namespace {

// What a barrier does besides making threads wait: `count` of the instruction.
enum Action : uint8_t { synchronise, reduce_popc, reduce_and, reduce_or };

// b: the barrier's number, c: how many threads it is for, a: their votes.
const Instruction *bar_sync(Warp &w, const Instruction &i) {
    const int lane = lowest(w.active);
    w.barrier = w.at<uint32_t>(i.b)[lane];
    w.barrier_threads = i.c == NO_OPERAND ? 0 : w.at<uint32_t>(i.c)[lane];
    if (w.barrier >= BARRIERS)
        fault(FaultKind::barrier, w, lane,
              "there is no barrier " + std::to_string(w.barrier) + ", which it waits at at " +
                  place_of(w.block->running.program, i));
    w.barrier_at = &i;
    w.state = Warp::at_barrier;
    if (i.count != synchronise)
        w.block->barriers[w.barrier].votes += uint32_t(__builtin_popcount(w.bits(i.a) & w.active));
    return wait_for(w, Waiting::barrier, i);
}

const Instruction *bar_arrive(Warp &w, const Instruction &i) {
    const uint32_t number = w.at<uint32_t>(i.b)[lowest(w.active)];
    w.block->barriers[number & (BARRIERS - 1)].arrived += uint32_t(LANES);
    return &i + 1;
}

const Instruction *bar_result(Warp &w, const Instruction &i) {
    const uint32_t number = w.at<uint32_t>(i.b)[lowest(w.active)];
    const uint32_t votes = w.block->barriers[number].result;
    const uint32_t threads =
        i.c == NO_OPERAND ? w.block->threads : w.at<uint32_t>(i.c)[lowest(w.active)];
    if (i.count == reduce_popc)
        write_lanes<false>(w.at<uint32_t>(i.d), w.active, [&](int) { return votes; });
    else
        w.set_bits(i.d, (i.count == reduce_and ? votes == threads : votes > 0) ? ALL : 0);
    return &i + 1;
}

const Instruction *sync_warp(Warp &w, const Instruction &i) {
    return together(w, i, member_mask(w, i.a), [&] { w.block->shared.synchronise_warp(w.index); });
}

// What bar.red and the reading of its result have in common.
size_t reduction(Selection &s) {
    s.instruction.count = uint8_t(reduce_popc + s.take_one({"popc", "and", "or"}));
    s.take_type();
    const size_t count = s.count();
    s.source(&Instruction::b, 1, Type::b32);
    if (count == 4) s.source(&Instruction::c, 2, Type::b32);
    return count;
}

// What follows a bar.red: see flat.cpp.
void barrier_result(Selection &s) {
    s.take("cta"), s.take("aligned"), s.take("red");
    reduction(s);
    const Type type = s.instruction.count == reduce_popc ? Type::b32 : Type::pred;
    s.result(&Instruction::d, 0, type);
    s.run({bar_result, bar_result});
}

void bar(Selection &s) {
    s.take("cta"), s.take("aligned");
    if (s.take("warp")) {
        s.take("sync");
        s.source(&Instruction::a, 0, Type::b32);
        s.instruction.anywhere = true;
        return s.run({sync_warp, sync_warp});
    }
    if (s.take("arrive")) {
        s.source(&Instruction::b, 0, Type::b32);
        return s.run({bar_arrive, bar_arrive});
    }
    if (s.take("red")) {
        const size_t count = reduction(s);
        s.source(&Instruction::a, count - 1, Type::pred);
        s.run({bar_sync, bar_sync});
        return;
    }
    s.take("sync");
    s.instruction.count = synchronise;
    s.source(&Instruction::b, 0, Type::b32);
    if (s.count() > 1) s.source(&Instruction::c, 1, Type::b32);
    s.run({bar_sync, bar_sync});
}

const Instruction *order_memory(Warp &w, const Instruction &i) {
    note_fence(w);
    return &i + 1;
}
void fence(Selection &s) {
    s.take_one({"sc", "acq_rel", "acquire", "release"});
    s.take_one({"cta", "cluster", "gpu", "sys", "gl"});
    s.run({order_memory, order_memory});
}

}  // namespace

void add_barriers(Selectors &s) {
    s["bar"] = bar;
    s["barrier"] = bar;
    s["barrier result"] = barrier_result;
    s["membar"] = fence;
    s["fence"] = fence;
}

}  // namespace gpu
