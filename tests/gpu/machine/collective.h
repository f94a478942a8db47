// Instructions that the lanes of a mask run together.
#pragma once

#include "block.h"
#include "report.h"

namespace gpu {

// Runs `operation` once all members have come; until then the running lanes wait. `members` must
// name only lanes that have not returned, the running ones among them.
template <class Operation>
const Instruction *together(Warp &w, const Instruction &i, uint32_t members, Operation operation) {
    if (w.active == members) {
        operation();
        return &i + 1;
    }
    const Program &program = w.block->running.program;
    members &= w.present;
    if (w.active & ~members)
        fault(FaultKind::lanes, w, lowest(w.active & ~members),
              "a warp operation at " + place_of(program, i) +
                  " with a mask that its own lane is not in");
    if (members & w.exited) report_missing_members(w, w.active, members, i);
    if (!gather_members(w, i, members)) return wait_for(w, Waiting::warp_operation, i);
    operation();
    return resume_members(w, i);
}

// The mask operand, which must be the same for all running lanes.
inline uint32_t member_mask(const Warp &w, uint32_t operand) {
    return w.at<uint32_t>(operand)[lowest(w.active)];
}

}  // namespace gpu
