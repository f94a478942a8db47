// Threads that launch a kernel at once over the block pool of `cpu`, for ThreadSanitizer.
//
// Linked with thread_pool.cpp and a library's text of dense.cu; see sanitize.py. Every caller has
// arrays of its own and checks that its results are those of a launch on one thread. With
// -DPLANTED_RACE the blocks also count themselves in a variable that nothing protects.
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

using OwnMemory = void *(*)(unsigned long bytes);
using RangeBody = void (*)(void *context, OwnMemory, long long begin, long long end);
using ParallelFor = void (*)(RangeBody body, void *context, long long count);

extern "C" {
void start_pool(int threads);
void parallel_for(RangeBody body, void *context, long long count);
void launch_dense_forward(const char *packed, ParallelFor parallel_for);
}

namespace {

constexpr int CALLERS = 4, ROUNDS = 60, INPUTS = 5, OUTPUTS = 33, TILE = 16;
// Nothing, one block, a few rows of blocks, more than the pool's threads have chunks.
constexpr int ROWS[] = {0, 1, 16, 17, 150, 1000};

#if defined(PLANTED_RACE)
long long blocks_run;
struct Counted {
    RangeBody body;
    void *context;
    static void run(void *self, OwnMemory memory, long long begin, long long end) {
        blocks_run += end - begin;
        const auto *counted = static_cast<Counted *>(self);
        counted->body(counted->context, memory, begin, end);
    }
};
void in_parallel(RangeBody body, void *context, long long count) {
    Counted counted{body, context};
    parallel_for(Counted::run, &counted, count);
}
#else
const ParallelFor in_parallel = parallel_for;
#endif

void *memory(unsigned long bytes) {
    alignas(64) static thread_local char own[1 << 21];
    if (bytes > sizeof own) abort();
    return own;
}
void alone(RangeBody body, void *context, long long count) { body(context, memory, 0, count); }

std::vector<float> dense(const std::vector<float> &x, int rows, ParallelFor share_out) {
    std::vector<float> w(OUTPUTS * INPUTS), y(rows * OUTPUTS, -1);
    for (size_t i = 0; i < w.size(); ++i) w[i] = float(i % 7) - 3;
    const struct {
        unsigned grid[3], shared_bytes;
        const float *x, *w, *bias;
        float *y, *sums;
        int *arrived, rows, inputs, outputs, relu, parts, share;
    } packed = {{unsigned(rows + TILE - 1) / TILE, (OUTPUTS + TILE - 1) / TILE, 1},
                0,
                x.data(),
                w.data(),
                nullptr,
                y.data(),
                nullptr,
                nullptr,
                rows,
                INPUTS,
                OUTPUTS,
                0,
                1,
                INPUTS};
    launch_dense_forward(reinterpret_cast<const char *>(&packed), share_out);
    return y;
}

void call(int caller) {
    for (int round = 0; round < ROUNDS; ++round) {
        const int rows = ROWS[(round + caller) % (sizeof ROWS / sizeof *ROWS)];
        std::vector<float> x(rows * INPUTS);
        for (size_t i = 0; i < x.size(); ++i) x[i] = float((i + caller + round) % 11);
        if (dense(x, rows, in_parallel) == dense(x, rows, alone)) continue;
        fprintf(stderr, "caller %d, round %d: not the result of one thread\n", caller, round);
        exit(1);
    }
}

}  // namespace

// The pool's threads are the one argument. Ends while they wait for work, as Python does.
int main(int, char **words) {
    start_pool(atoi(words[1]));
    std::vector<std::thread> callers;
    for (int i = 0; i < CALLERS; ++i) callers.emplace_back(call, i);
    for (auto &caller : callers) caller.join();
    return 0;
}
