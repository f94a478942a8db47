// What the launches since emulated_count() did, for whoever profiles a program.
#pragma once

#include "module.h"

namespace gpu {

// Runs a launch; its counters are kept while launches are counted.
void run_counted(Kernel &kernel, const Launch &launch);

}  // namespace gpu
