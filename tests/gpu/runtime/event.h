// Events: points in the work of a stream.
#pragma once

#include <driver_types.h>

#include <chrono>
#include <memory>
#include <vector>

#include "order.h"

namespace gpu {

struct Capture;

struct Event {
    bool timed;
    bool recorded = false;
    Clock clock;  // of the work before it
    std::chrono::steady_clock::time_point time;
    std::shared_ptr<Capture> capture;  // that it was last recorded in
    std::vector<size_t> tips;          // and the nodes before it there
};

}  // namespace gpu
