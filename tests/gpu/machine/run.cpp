// Launches: blocks shared out over the host's cores.
#include <algorithm>
#include <cstring>
#include <exception>
#include <mutex>
#include <optional>
#include <thread>

#include "block.h"
#include "counting.h"
#include "host_threads.h"

namespace gpu {
namespace {

// Of the faults that threads find, that of the first block is kept.
struct FirstFault {
    std::mutex mutex;
    uint64_t block = ~uint64_t(0);
    std::exception_ptr exception;

    void note(uint64_t number) {
        const std::lock_guard<std::mutex> lock(mutex);
        if (number < block) block = number, exception = std::current_exception();
    }
};

void work(Running &running, FirstFault &first) {
    const uint64_t blocks = running.launch.grid.count();
    std::optional<Block> block;  // made when there is one left to run
    while (!running.stopped) {
        const uint64_t turn = running.next_block++;
        if (turn >= blocks) break;
        const uint64_t number = running.machine.opposite ? blocks - 1 - turn : turn;
        try {
            if (!block) block.emplace(running);
            block->run(number);
        } catch (...) {
            first.note(number);
            running.stopped = true;
            return;
        }
    }
    if (!block || !block->counting) return;
    const std::lock_guard<std::mutex> lock(running.counted);
    running.launch.counters->add(block->counting->totals);
}

// The shadow of global memory tells launches apart by a number of 8 bits.
void prepare_races(Running &running) {
    constexpr uint32_t NUMBERS = 255, MOST_BLOCKS = 1 << 20;
    const uint32_t number = running.serial % NUMBERS;
    if (number == 0) running.machine.memory.forget_touched();
    running.stamp = (number + 1) << 24;
    running.machine.stamp = running.stamp;
    running.several_blocks = running.launch.grid.count() > 1 || running.machine.watched;
    if (running.program.strong && running.several_blocks)
        running.released.resize(std::min<uint64_t>(running.launch.grid.count(), MOST_BLOCKS));
}

}  // namespace

Machine::Machine(const Device &model, unsigned threads)
    : device(model),
      host_threads(threads ? threads : std::max(1u, std::thread::hardware_concurrency())) {}

void run(Machine &machine, const Launch &launch) {
    const Function &function = *launch.function;
    Running running(machine, launch);
    running.parameters.resize(function.parameter_bytes + 16);
    for (size_t i = 0; i < function.parameters.size(); ++i)
        memcpy(running.parameters.data() + function.parameters[i].offset, launch.arguments[i],
               function.parameters[i].bytes);
    prepare_races(running);
    FirstFault first;
    const uint64_t others = std::min<uint64_t>(machine.host_threads, launch.grid.count()) - 1;
    running.concurrent = others > 0;
    run_on_host_threads(unsigned(others), [&] { work(running, first); });
    if (first.exception) std::rethrow_exception(first.exception);
}

}  // namespace gpu
