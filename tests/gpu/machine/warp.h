// A warp: its registers, and the fragments that its lanes run in.
#pragma once

#include <cstdint>
#include <vector>

#include "instruction.h"
#include "lanes.h"

namespace gpu {

struct Block;

// What a fragment waits for.
enum class Waiting : uint8_t { nothing, children, warp_operation, barrier };

// Lanes of a warp that run together. A divergent branch makes two children, which end at `join`,
// where their paths reconverge; the parent goes on when all are there.
struct Fragment {
    const Instruction *next = nullptr;
    const Instruction *join = nullptr;  // where it ends; nullptr: when its lanes return
    uint32_t mask = 0;                  // its lanes; of a parent, those that have joined
    int parent = -1, children = 0;
    Waiting waiting = Waiting::nothing;
    uint32_t members = 0;  // of the warp operation that it waits at
    bool used = false;
};

struct Warp {
    char *bases[2] = {};               // its registers; the values common to the block
    uint32_t active = 0;               // the lanes that run now
    uint32_t present = 0, exited = 0;  // lanes that exist; lanes that have returned
    uint32_t index = 0;                // in the block
    int current = -1;                  // the running fragment, -1: none can run
    std::vector<Fragment> fragments;
    Block *block = nullptr;
    char *local = nullptr;     // the lanes' own memory, one after the other
    uint32_t overwrites = 0;   // lanes that store what another block stored: races.h
    uint32_t overwritten = 0;  // lanes whose store another one may overwrite: shared_memory.h
    bool wrote = false;        // to global memory since the last barrier: races.h
    int64_t turn = 0;          // backward branches left until another warp gets a turn

    // Of the barrier that it waits at.
    enum State : uint8_t { ready, at_barrier, ended } state = ready;
    const Instruction *barrier_at = nullptr;
    uint32_t barrier = 0;          // its number
    uint32_t barrier_threads = 0;  // that it waits for

    template <class T> T *at(uint32_t operand) const {
        return reinterpret_cast<T *>(bases[operand & COMMON] + (operand & ~3u));
    }
    // A predicate's bits.
    uint32_t bits(uint32_t operand) const {
        return *at<uint32_t>(operand) ^ (operand & NEGATED ? ALL : 0);
    }
    void set_bits(uint32_t operand, uint32_t bits) {
        uint32_t &held = *at<uint32_t>(operand);
        held = (held & ~active) | (bits & active);
    }
};

// ---- fragments: fragments.cpp ------------------------------------------------------------------

// All lanes before the first instruction: together, or one by one, the last one first.
void start(Warp &warp, const Instruction *first, uint32_t lanes, bool one_by_one);

// The active lanes diverge: those of `taken` go on at `target`, the others at `next`, and they
// reconverge at `join` (nullptr: never). Returns what runs next.
const Instruction *diverge(Warp &warp, uint32_t taken, const Instruction *target,
                           const Instruction *next, const Instruction *join);

// The running fragment has come to `join`: it ends there if that is its join.
const Instruction *reconverge(Warp &warp, const Instruction &join);

// The active lanes return.
const Instruction *exit_lanes(Warp &warp);

// Gathers the members of a warp operation at `at`. Returns true when all of them are active, and
// then resume_members() must follow the operation; false if the running fragment must wait.
bool gather_members(Warp &warp, const Instruction &at, uint32_t members);
const Instruction *resume_members(Warp &warp, const Instruction &at);

// The running fragment waits; returns what another one runs next, nullptr if none can.
const Instruction *wait_for(Warp &warp, Waiting what, const Instruction &at);

// Lets the fragments that wait at a barrier go on after it.
void leave_barrier(Warp &warp);

}  // namespace gpu
