// How much of a multiprocessor a kernel's blocks take.
#pragma once

#include "module.h"

namespace gpu {

// Threads that a block of the kernel may have: by its registers and by its own bound.
int most_threads(Kernel &kernel);
// Blocks that a multiprocessor runs side by side.
int resident_blocks(Kernel &kernel, int threads, size_t dynamic_shared);

}  // namespace gpu
