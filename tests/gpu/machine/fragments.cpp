// Divergence and reconvergence of a warp's lanes.
#include "warp.h"

#include "report.h"

namespace gpu {
namespace {

int new_fragment(Warp &warp) {
    for (size_t i = 0; i < warp.fragments.size(); ++i)
        if (!warp.fragments[i].used) {
            warp.fragments[i] = Fragment();
            warp.fragments[i].used = true;
            return int(i);
        }
    warp.fragments.emplace_back();
    warp.fragments.back().used = true;
    return int(warp.fragments.size() - 1);
}

const Instruction *run_fragment(Warp &warp, int number) {
    warp.current = number;
    warp.active = warp.fragments[number].mask;
    return warp.fragments[number].next;
}

// Picks a fragment that can run: the innermost first.
const Instruction *pick(Warp &warp) {
    for (size_t i = warp.fragments.size(); i-- > 0;) {
        const Fragment &f = warp.fragments[i];
        if (f.used && f.waiting == Waiting::nothing) return run_fragment(warp, int(i));
    }
    warp.current = -1;
    return nullptr;
}

// A fragment has ended; `joined` are its lanes that go on with the parent.
const Instruction *end_fragment(Warp &warp, int number, uint32_t joined) {
    Fragment &ended = warp.fragments[number];
    ended.used = false;
    if (ended.parent < 0) return pick(warp);
    Fragment &parent = warp.fragments[ended.parent];
    parent.mask |= joined;
    if (--parent.children > 0) return pick(warp);
    if (parent.mask == 0) return end_fragment(warp, ended.parent, 0);
    parent.waiting = Waiting::nothing;
    return run_fragment(warp, ended.parent);
}

}  // namespace

void start(Warp &warp, const Instruction *first, uint32_t lanes, bool one_by_one) {
    warp.fragments.clear();
    warp.present = lanes;
    warp.exited = 0;
    warp.state = Warp::ready;
    while (lanes) {
        const uint32_t mask = one_by_one ? lanes & -lanes : lanes;
        Fragment &made = warp.fragments[new_fragment(warp)];
        made.next = first, made.mask = mask;
        lanes &= ~mask;
    }
    pick(warp);
}

const Instruction *diverge(Warp &warp, uint32_t taken, const Instruction *target,
                           const Instruction *next, const Instruction *join) {
    const uint32_t others = warp.active & ~taken;
    const int number = warp.current;
    Fragment &whole = warp.fragments[number];
    // No new level where the others are to end at the same place, as when lanes leave a loop.
    if (join && whole.join == join && (target == join || next == join)) {
        const bool leave = target == join;
        warp.fragments[whole.parent].mask |= leave ? taken : others;
        warp.active = whole.mask = leave ? others : taken;
        return leave ? next : target;
    }
    whole.next = join;
    whole.waiting = Waiting::children;
    whole.mask = whole.children = 0;
    const auto child = [&](uint32_t lanes, const Instruction *at) {
        if (at == join) {
            warp.fragments[number].mask |= lanes;
            return;
        }
        const int made = new_fragment(warp);
        Fragment &f = warp.fragments[made];
        f.next = at, f.join = join, f.mask = lanes, f.parent = number;
        ++warp.fragments[number].children;
    };
    child(taken, target);
    child(others, next);
    return pick(warp);
}

const Instruction *reconverge(Warp &warp, const Instruction &join) {
    Fragment &f = warp.fragments[warp.current];
    if (f.join != &join) return &join + 1;
    return end_fragment(warp, warp.current, f.mask);
}

const Instruction *exit_lanes(Warp &warp) {
    warp.exited |= warp.active;
    Fragment &f = warp.fragments[warp.current];
    f.mask &= ~warp.active;
    if (f.mask) {  // a guarded exit: the others go on
        warp.active = f.mask;
        return nullptr;
    }
    return end_fragment(warp, warp.current, 0);
}

namespace {

// Whether a fragment waits at a warp operation that is the one at `at`.
bool waits_at(const Fragment &f, const Instruction &at, uint32_t members) {
    return f.used && f.waiting == Waiting::warp_operation && f.members == members &&
           (f.next == &at || (f.next->anywhere && at.anywhere));
}

}  // namespace

bool gather_members(Warp &warp, const Instruction &at, uint32_t members) {
    uint32_t arrived = warp.active;
    for (const Fragment &f : warp.fragments)
        if (waits_at(f, at, members)) arrived |= f.mask;
    Fragment &self = warp.fragments[warp.current];
    self.next = &at;
    self.members = members;
    if ((members & ~arrived) != 0) return false;
    self.waiting = Waiting::warp_operation;
    warp.active = arrived;
    return true;
}

const Instruction *resume_members(Warp &warp, const Instruction &at) {
    const uint32_t members = warp.fragments[warp.current].members;
    for (Fragment &f : warp.fragments)
        if (waits_at(f, at, members)) {
            f.waiting = Waiting::nothing;
            ++f.next;
        }
    return run_fragment(warp, warp.current);
}

const Instruction *wait_for(Warp &warp, Waiting what, const Instruction &at) {
    Fragment &self = warp.fragments[warp.current];
    self.waiting = what;
    self.next = &at;
    return pick(warp);
}

void leave_barrier(Warp &warp) {
    for (Fragment &f : warp.fragments)
        if (f.used && f.waiting == Waiting::barrier) {
            f.waiting = Waiting::nothing;
            ++f.next;
        }
    warp.state = Warp::ready;
    if (warp.current < 0 || warp.fragments[warp.current].waiting != Waiting::nothing) pick(warp);
}

}  // namespace gpu
