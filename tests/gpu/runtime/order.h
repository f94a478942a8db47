// The order of work, and races of unordered work.
//
// Work runs at once, in the order in which it is enqueued; that is one of the orders that CUDA
// allows. Vector clocks tell whether CUDA had to choose it: a stream's timeline counts its work,
// and a clock says how much of each timeline is known to come before. Two works that touch the same
// bytes, one of them writing, while neither comes before the other, are a race.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "../machine/machine.h"

namespace gpu {

using Timeline = uint32_t;
using Clock = std::map<Timeline, uint32_t>;

// A timeline that no other stream has.
Timeline new_timeline();
// What `clock` knows, `other` knows then, too.
void join(Clock &clock, const Clock &other);

// What the host waited for: all that it enqueues later comes after that.
Clock &host_clock();
// What was enqueued in all.
Clock &all_work();

// Notes what the work `index` of a timeline touched, which comes after what `clock` knows. Throws
// Fault if other work without an order touched the same.
void check_order(const std::string &name, Timeline timeline, const Clock &clock,
                 const std::vector<Span> &spans);
// The array that begins there was freed.
void forget_accesses(const void *pointer);

}  // namespace gpu
