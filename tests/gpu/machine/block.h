// A block of a launch and what it shares; and the launch itself.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "machine.h"
#include "shared_memory.h"
#include "warp.h"

namespace gpu {

class Counting;

// Generic addresses of shared, local and parameter memory lie in windows of their own, which no
// address of the host can be in.
constexpr uint64_t SHARED_WINDOW = uint64_t(1) << 47;
constexpr uint64_t LOCAL_WINDOW = SHARED_WINDOW + (uint64_t(1) << 32);
constexpr uint64_t PARAMETER_WINDOW = LOCAL_WINDOW + (uint64_t(1) << 32);
constexpr uint64_t WINDOW_BYTES = uint64_t(1) << 32;

// A launch while it runs.
struct Running {
    Running(Machine &on, const Launch &of)
        : machine(on), launch(of), program(*of.function->program), serial(++on.launches) {}

    Machine &machine;
    const Launch &launch;
    const Program &program;
    std::vector<char> parameters;  // the arguments' bytes, as in parameter memory
    uint32_t serial;               // of this launch
    std::atomic<uint64_t> next_block{0};
    std::atomic<bool> stopped{false};  // a fault was found
    std::mutex counted;                // guards the launch's counters

    // For races.h.
    bool several_blocks = false;
    bool concurrent = false;  // on several host threads
    uint32_t stamp = 0;
    std::atomic<uint32_t> synchronisations{0};  // strong accesses so far
    std::vector<uint32_t> released;             // by block: the one that released its writes, or 0
};

// The bounds of the array that a memory instruction accessed last; the next is mostly the same.
struct Bounds {
    uint64_t begin = 0, end = 0;
    const Array *array = nullptr;
};

// Barriers of a block, by number.
constexpr int BARRIERS = 16;
struct Barrier {
    uint32_t arrived = 0;  // threads that arrived without waiting (bar.arrive)
    uint32_t votes = 0;    // threads now waiting whose predicate holds (bar.red)
    uint32_t result = 0;   // votes when the barrier last completed
};

// A thread's asynchronous copies that it has not waited for, oldest first.
struct PendingCopy {
    char *to;
    uint32_t bytes, group;
    char data[16];
};
struct PendingCopies {
    std::deque<PendingCopy> waiting;
    uint32_t open_group = 0;
};

struct Block {
    explicit Block(Running &running);
    ~Block();

    void run(uint64_t number);  // throws Fault

    Running &running;
    uint64_t number = 0;
    Dim3 index;
    std::vector<Warp> warps;
    uint32_t threads;
    SharedMemory shared;
    Barrier barriers[BARRIERS];
    bool fenced = false;         // it has fenced
    int releasing = -1;          // the warp that released its writes since the last barrier
    uint32_t acquired = 0;       // the last strong access of its own: Running::synchronisations
    std::vector<Bounds> bounds;  // by Instruction::site
    std::vector<PendingCopies> copies;   // by thread
    std::unique_ptr<Counting> counting;  // if the launch is counted

  private:
    void prepare(uint64_t number);
    void set_common();
    void set_block_values();
    void set_warp_values(Warp &warp);
    void run_warps();
    bool release_barriers();
    bool release_barrier(uint32_t number);
    [[noreturn]] void report_deadlock();

    std::unique_ptr<char[]> registers_, common_, local_;
    size_t register_stride_ = 0, local_stride_ = 0;
};

}  // namespace gpu
