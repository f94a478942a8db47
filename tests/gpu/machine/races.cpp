#include "races.h"

#include <cstring>

#include "report.h"

namespace gpu {

void note_global_access(const Warp &warp, int lane, const Instruction &at, const Array &array,
                        uint64_t address, uint32_t bytes, Access access) {
    Running &running = warp.block->running;
    Memory &memory = running.machine.memory;
    if (array.whole) return;
    uint8_t *marks = memory.marks(address);
    if (access == Access::write) {
        memset(marks, 1, bytes);
    } else if (memchr(marks, 0, bytes)) {
        fault(FaultKind::unwritten, warp, lane,
              "read of " + std::to_string(bytes) + " bytes at " + place_of(running.program, at) +
                  " reads memory that nobody has written: " + address_of(running, address, bytes));
    }
}

void note_fence(Warp &) {}

}  // namespace gpu
