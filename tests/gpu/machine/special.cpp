// Clocks, sleep, and hints that change nothing.
#include <chrono>

#include "block.h"
#include "elementwise.h"

namespace gpu {
namespace {

uint64_t nanoseconds() {
    const auto since = std::chrono::steady_clock::now().time_since_epoch();
    return uint64_t(std::chrono::duration_cast<std::chrono::nanoseconds>(since).count());
}

// Time in nanoseconds or clocks; `immediate` is by how many bits it is shifted for the upper word.
template <class T, bool CLOCKS> const Instruction *clock_value(Warp &w, const Instruction &i) {
    uint64_t value = nanoseconds();
    if (CLOCKS) value = uint64_t(double(value) * w.block->running.machine.device.clock_khz * 1e-6);
    write_lanes<false>(w.at<T>(i.d), w.active, [&](int) { return T(value >> i.immediate); });
    return &i + 1;
}

// Yields to the other warps.
const Instruction *nanosleep(Warp &w, const Instruction &i) {
    w.fragments[size_t(w.current)].next = &i + 1;
    return nullptr;
}

const Instruction *nothing(Warp &, const Instruction &i) { return &i + 1; }

void select_nothing(Selection &s) {
    while (const std::string *modifier = s.next()) s.take(*modifier);
    s.run({nothing, nothing});
}
void select_nanosleep(Selection &s) {
    s.take_type();
    s.run({nanosleep, nanosleep});
}

}  // namespace

void select_clock(Selection &s, Type type) {
    const std::string &name = s.operand(1).text;
    const bool clocks = name.compare(0, 6, "%clock") == 0;
    const bool high = name.size() > 3 && name.compare(name.size() - 3, 3, "_hi") == 0;
    s.instruction.immediate = high ? 32 : 0;
    s.result(&Instruction::d, 0, type);
    Handler handler;
    if (width_of(type) == Width::pair)
        handler = clocks ? clock_value<uint64_t, true> : clock_value<uint64_t, false>;
    else
        handler = clocks ? clock_value<uint32_t, true> : clock_value<uint32_t, false>;
    s.run({handler, handler});
}

void add_special(Selectors &s) {
    s["nanosleep"] = select_nanosleep;
    s["pmevent"] = select_nothing;
    s["setmaxnreg"] = select_nothing;
    s["griddepcontrol"] = select_nothing;
}

}  // namespace gpu
