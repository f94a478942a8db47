// What a kernel's library and the `simt` runtime share; see simt.cpp.
#pragma once

struct dim3 { unsigned x, y, z; };

namespace simt {

// The registers that CUDA code reads; of the lane that runs now.
struct Registers { dim3 thread, block, block_size, grid_size; };
extern Registers registers;

// One array argument of a launch: what a kernel may touch of global memory.
struct Argument {
    const char *name;
    const char *begin;
    long long bytes;
};

enum Order { FORWARD, REVERSE, RANDOM };

struct Launch {
    const char *kernel;
    unsigned grid[3], threads, shared_bytes;
    int order;
    unsigned long long seed;
    int arguments;
    const Argument *argument;
    // One byte for each of the library's first `visited_bytes` addresses, set to 1 after a checked
    // access that returns there; null where nobody asks.
    unsigned char *visited;
    long long visited_bytes;
};

// Runs body(context) once for every thread of the grid. Returns null, or a sentence about the first
// fault, in which {0x...} stands for a code address relative to the library that holds `code`.
const char *run(const Launch &launch, void (*body)(void *), void *context, const void *code);

// Blocks until every lane of the block is here; `line` tells barriers apart.
void barrier(int line);

// Blocks until every lane in `mask` is at the same operation; gives lane `source`'s value.
unsigned long long exchange(int line, unsigned mask, unsigned source, unsigned long long value);

// The lanes of `mask` whose value is not 0.
unsigned ballot(int line, unsigned mask, bool value);

// Asynchronous copies of the lane that runs; see async_copy.cuh. `code` is the kernel's address.
void begin_copy(void *to, const void *from, int bytes, int valid, const void *code);
void commit_copies();
void wait_copies(unsigned groups);

char *dynamic_shared();

}  // namespace simt
