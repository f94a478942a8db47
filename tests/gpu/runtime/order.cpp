#include "order.h"

#include <algorithm>

#include "../machine/error.h"
#include "context.h"

namespace gpu {
namespace {

struct Access {
    uintptr_t begin, end;
    bool write;
    Timeline timeline;
    uint32_t index;
    std::string name;
};

// What touched each array, by its first address, since the host last waited for it.
std::map<uint64_t, std::vector<Access>> accesses;

uint32_t known(const Clock &clock, Timeline timeline) {
    const auto found = clock.find(timeline);
    return found == clock.end() ? 0 : found->second;
}

std::string hexadecimal(uintptr_t value) {
    char text[32];
    std::snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(value));
    return text;
}

[[noreturn]] void report(const Array &array, const Access &before, const Access &now) {
    const uintptr_t first = std::max(before.begin, now.begin);
    throw Fault(FaultKind::race, now.name + (now.write ? " writes" : " reads") + " byte " +
                                     std::to_string(first - array.begin) + " of the array of " +
                                     std::to_string(array.end - array.begin) + " bytes at " +
                                     hexadecimal(array.begin) + ", which " + before.name +
                                     (before.write ? " writes" : " reads") +
                                     " in another stream, with nothing that orders the two");
}

}  // namespace

Timeline new_timeline() {
    static Timeline last = 0;
    return ++last;
}

void join(Clock &clock, const Clock &other) {
    for (const auto &[timeline, count] : other) {
        uint32_t &known = clock[timeline];
        known = std::max(known, count);
    }
}

Clock &host_clock() {
    static Clock clock;
    return clock;
}

Clock &all_work() {
    static Clock clock;
    return clock;
}

void check_order(const std::string &name, Timeline timeline, const Clock &clock,
                 const std::vector<Span> &spans) {
    for (const Span &span : spans) {
        const Array *array =
            context().machine.memory.array_at(reinterpret_cast<const void *>(span.begin));
        if (!array) continue;
        const Access now{span.begin, span.end, span.write, timeline, known(clock, timeline), name};
        std::vector<Access> &list = accesses[array->begin];
        for (const Access &before : list)
            if ((before.write || now.write) && before.begin < now.end && now.begin < before.end &&
                known(clock, before.timeline) < before.index)
                report(*array, before, now);
        // All that overlaps comes before this work, so what comes after this comes after that.
        const auto covered = [&](const Access &before) {
            const bool inside = now.begin <= before.begin && before.end <= now.end;
            const bool same = before.timeline == now.timeline && !before.write;
            return (inside && (now.write || same)) ||
                   known(host_clock(), before.timeline) >= before.index;
        };
        list.erase(std::remove_if(list.begin(), list.end(), covered), list.end());
        list.push_back(now);
    }
}

void forget_accesses(const void *pointer) { accesses.erase(reinterpret_cast<uint64_t>(pointer)); }

}  // namespace gpu
