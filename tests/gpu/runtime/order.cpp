#include "order.h"

#include <algorithm>
#include <memory>

#include "../machine/error.h"
#include "context.h"

namespace gpu {
namespace {

// One work's part in what happened to some bytes.
struct Access {
    Timeline timeline = 0;
    uint32_t index = 0;
    std::shared_ptr<const std::string> name;  // null: there was none
};

// Neighbouring bytes with the same past: what wrote them last, and what read them since then.
struct Segment {
    uintptr_t end;
    Access writer;
    std::vector<Access> readers;
};
using Segments = std::map<uintptr_t, Segment>;  // by first byte

// What touched each array, by its first address.
std::map<uint64_t, Segments> accesses;

uint32_t known(const Clock &clock, Timeline timeline) {
    const auto found = clock.find(timeline);
    return found == clock.end() ? 0 : found->second;
}

std::string hexadecimal(uintptr_t value) {
    char text[32];
    std::snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(value));
    return text;
}

// Lets a segment begin at this byte, if one goes over it.
void split(Segments &segments, uintptr_t at) {
    const auto next = segments.lower_bound(at);
    if (next == segments.begin()) return;
    Segment &segment = std::prev(next)->second;
    if (segment.end <= at) return;
    segments.emplace_hint(next, at, segment);
    segment.end = at;
}

// Adds a reader to those of a segment, in the place of those that come before it.
void note_reader(Segment &segment, const Access &now) {
    std::vector<Access> &readers = segment.readers;
    const auto before = [&](const Access &reader) {
        return reader.timeline == now.timeline ||
               known(host_clock(), reader.timeline) >= reader.index;
    };
    readers.erase(std::remove_if(readers.begin(), readers.end(), before), readers.end());
    readers.push_back(now);
}

// Throws Fault if an earlier access to a segment does not come before this one.
void check_segment(const Array &array, uintptr_t begin, const Segment &segment, const Access &now,
                   bool write, const Clock &clock) {
    const auto check = [&](const Access &before, bool wrote) {
        if (!before.name || known(clock, before.timeline) >= before.index) return;
        throw Fault(FaultKind::race, *now.name + (write ? " writes" : " reads") + " byte " +
                                         std::to_string(begin - array.begin) + " of the array of " +
                                         std::to_string(array.end - array.begin) + " bytes at " +
                                         hexadecimal(array.begin) + ", which " + *before.name +
                                         (wrote ? " writes" : " reads") +
                                         " in another stream, with nothing that orders the two");
    };
    check(segment.writer, true);
    if (write)
        for (const Access &reader : segment.readers) check(reader, false);
}

void note_write(Segments &segments, const Span &span, const Access &now) {
    segments.erase(segments.lower_bound(span.begin), segments.lower_bound(span.end));
    segments.emplace(span.begin, Segment{span.end, now, {}});
}

void note_read(Segments &segments, const Span &span, const Access &now) {
    auto next = segments.lower_bound(span.begin);
    for (uintptr_t at = span.begin; at < span.end;) {
        if (next == segments.end() || next->first > at) {  // bytes without a past
            const uintptr_t end =
                next == segments.end() ? span.end : std::min<uintptr_t>(next->first, span.end);
            segments.emplace_hint(next, at, Segment{end, {}, {now}});
            at = end;
        } else {
            note_reader(next->second, now);
            at = next->second.end;
            ++next;
        }
    }
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
    const Access now{timeline, known(clock, timeline), std::make_shared<std::string>(name)};
    for (const Span &span : spans) {
        const Array *array =
            context().machine.memory.array_at(reinterpret_cast<const void *>(span.begin));
        if (!array || span.begin == span.end) continue;
        Segments &segments = accesses[array->begin];
        split(segments, span.begin);
        split(segments, span.end);
        for (auto at = segments.lower_bound(span.begin);
             at != segments.end() && at->first < span.end; ++at)
            check_segment(*array, at->first, at->second, now, span.write, clock);
        if (span.write)
            note_write(segments, span, now);
        else
            note_read(segments, span, now);
    }
}

void forget_accesses(const void *pointer) { accesses.erase(reinterpret_cast<uint64_t>(pointer)); }

}  // namespace gpu
