// Branches and ends: bra, brx.idx, ret, exit, trap.
#include "block.h"
#include "report.h"
#include "selection.h"
#include "warp.h"

namespace gpu {
namespace {

// A warp yields now and then at a backward branch: it may be waiting for another one.
const Instruction *go(Warp &w, const Instruction &from, const Instruction *to) {
    if (to > &from || --w.turn > 0) return to;
    w.fragments[size_t(w.current)].next = to;
    return nullptr;
}

const Instruction *jump(Warp &w, const Instruction &i) { return go(w, i, i.target); }

const Instruction *branch(Warp &w, const Instruction &i) {
    const uint32_t taken = w.bits(i.guard) & w.active;
    if (taken == 0) return &i + 1;
    if (taken == w.active) return go(w, i, i.target);
    return diverge(w, taken, i.target, &i + 1, i.join);
}

const Instruction *branch_by_table(Warp &w, const Instruction &i) {
    const auto &table = w.block->running.program.tables.at(w.block->running.program.index(i));
    const uint32_t *index = w.at<uint32_t>(i.a);
    const uint32_t chosen = index[lowest(w.active)];
    uint32_t alike = 0;
    for (uint32_t rest = w.active; rest; rest &= rest - 1)
        if (index[lowest(rest)] == chosen) alike |= 1u << lowest(rest);
    if (chosen >= table.size())
        fault(FaultKind::trap, w, lowest(alike),
              "brx.idx at " + place_of(w.block->running.program, i) + " has index " +
                  std::to_string(chosen) + " of a table of " + std::to_string(table.size()));
    if (alike == w.active) return go(w, i, table[chosen]);
    // Those with another index come here again.
    return diverge(w, alike, table[chosen], &i, i.join);
}

const Instruction *leave(Warp &w, const Instruction &) { return exit_lanes(w); }

const Instruction *trap(Warp &w, const Instruction &i) {
    fault(FaultKind::trap, w, lowest(w.active), "trap at " + place_of(w.block->running.program, i));
}

void bra(Selection &s) {
    s.take("uni");
    if (s.statement.guard.empty())
        s.run({jump, jump});
    else
        s.run_unguarded({branch, branch});
}
void brx(Selection &s) {
    s.take("idx"), s.take("uni");
    s.source(&Instruction::a, 0, Type::u32);
    s.run({branch_by_table, branch_by_table});
}
void ret(Selection &s) {
    s.take("uni");
    s.run({leave, leave});
}
void select_trap(Selection &s) { s.run({trap, trap}); }

}  // namespace

void add_control(Selectors &s) {
    s["bra"] = bra;
    s["brx"] = brx;
    s["ret"] = ret;
    s["exit"] = ret;
    s["trap"] = select_trap;
    s["brkpt"] = select_trap;
}

}  // namespace gpu
