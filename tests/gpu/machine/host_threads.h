// Threads of the host that blocks are shared out over.
#pragma once

#include <functional>

namespace gpu {

// Runs the work on this thread and on up to `others` more at once: those that come before it is
// done. Work of two callers goes one after the other.
void run_on_host_threads(unsigned others, const std::function<void()> &work);

}  // namespace gpu
