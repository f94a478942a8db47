// The dialect's words on `cpu`: one CUDA thread a block, compiled by the system's C++ compiler.
#pragma once

#include "dialect_host.cuh"

struct dim3 { unsigned x, y, z; };

#define __shared__  // the block's one thread keeps its shared memory on its stack

static constexpr dim3 threadIdx{0, 0, 0}, blockDim{1, 1, 1};
static thread_local dim3 blockIdx, gridDim;
static inline void __syncthreads() {}

static thread_local double *dynamic_shared_bytes;
#define DYNAMIC_SHARED(type, name) type *name = reinterpret_cast<type *>(dynamic_shared_bytes)

// The widest vector register that the instruction set has; 16 bytes is SSE2's and NEON's.
#if defined(__AVX512F__)
#define REGISTER_BYTES 64
#elif defined(__AVX__)
#define REGISTER_BYTES 32
#else
#define REGISTER_BYTES 16
#endif

template <typename E> struct Simd {
    typedef E type __attribute__((vector_size(REGISTER_BYTES)));
    static constexpr int LANES = REGISTER_BYTES / sizeof(E);
};
template <typename E> static inline typename Simd<E>::type load_lanes(const E *p) {
    typename Simd<E>::type value;
    memcpy(&value, p, sizeof value);  // an unaligned load
    return value;
}
template <typename E> static inline void store_lanes(E *p, typename Simd<E>::type value) {
    memcpy(p, &value, sizeof value);
}

// Blocks run on several cores at once.
template <typename E> static inline E atomicAdd(E *p, E value) {
    E before;
    __atomic_load(p, &before, __ATOMIC_RELAXED);
    for (;;) {
        E after = before + value;
        if (__atomic_compare_exchange(p, &before, &after, false, __ATOMIC_RELAXED,
                                      __ATOMIC_RELAXED))
            return before;
    }
}

// A loop over a fixed number of neighbouring elements, turned into SIMD code.
#define LANE_LOOP(v, V) _Pragma("omp simd") for (int v = 0; v < (V); ++v)
// The first `count` of them.
#define FIRST_LANES(v, V, count) _Pragma("omp simd") for (int v = 0; v < (count); ++v)

// A block takes one contiguous chunk, so that the loop is a plain one over neighbours.
#define GRID_STRIDE(i, n)                                                   \
    for (long long i = (n) * (long long)blockIdx.x / gridDim.x,             \
                   i##_end = (n) * ((long long)blockIdx.x + 1) / gridDim.x; \
         i < i##_end; ++i)
#define BLOCK_STRIDE(i, n) for (int i = 0, i##_end = (n); i < i##_end; ++i)

template <typename E, typename Op> static inline E block_reduce(E value, Op) { return value; }

// ---- launching ---------------------------------------------------------------------------------

using RangeBody = void (*)(void *context, long long begin, long long end);
using ParallelFor = void (*)(RangeBody body, void *context, long long count);

template <typename... P> struct Launch {
    Call<P...> call;
    dim3 grid;
    unsigned shared_bytes;

    void blocks(long long begin, long long end) const {
        gridDim = grid;
        dynamic_shared_bytes = new double[shared_bytes / sizeof(double) + 1];
        for (long long block = begin; block < end; ++block) {
            blockIdx.x = unsigned(block % grid.x);
            blockIdx.y = unsigned(block / grid.x % grid.y);
            blockIdx.z = unsigned(block / grid.x / grid.y);
            call();
        }
        delete[] dynamic_shared_bytes;
    }
    static void body(void *self, long long begin, long long end) {
        static_cast<Launch *>(self)->blocks(begin, end);
    }
};

// `grid` holds the blocks along x, y and z, then the bytes of dynamic shared memory.
template <typename... P>
static void launch(void (*kernel)(P...), const unsigned *grid, void **arguments,
                   ParallelFor parallel_for) {
    Launch<P...> self{{kernel, arguments}, {grid[0], grid[1], grid[2]}, grid[3]};
    parallel_for(Launch<P...>::body, &self, (long long)grid[0] * grid[1] * grid[2]);
}

// The runtime appends one of these per entry point.
#define EXPORT_LAUNCH(name)                                                 \
    extern "C" __attribute__((visibility("default"))) void launch_##name(   \
        const unsigned *grid, void **arguments, ParallelFor parallel_for) { \
        launch(name, grid, arguments, parallel_for);                        \
    }
