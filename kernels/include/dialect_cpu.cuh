// The dialect's words on `cpu`: one CUDA thread a block, compiled by the system's C++ compiler.
#pragma once

#include <math.h>
#include <string.h>

struct dim3 {
    unsigned x, y, z;
};

#define __global__ __attribute__((noinline))
#define __device__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __shared__  // the block's one thread keeps its shared memory on its stack

static constexpr dim3 threadIdx{0, 0, 0}, blockDim{1, 1, 1};
static thread_local dim3 blockIdx, gridDim;
static inline void __syncthreads() {}

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
template <typename V> static inline auto lane(V value, int i) { return value[i]; }

// A block takes one contiguous chunk, so that the loop is a plain one over neighbours.
#define GRID_STRIDE(i, n)                                                                     \
    for (long long i = (n) * (long long)blockIdx.x / gridDim.x,                               \
                   i##_end = (n) * ((long long)blockIdx.x + 1) / gridDim.x;                   \
         i < i##_end; ++i)
#define BLOCK_STRIDE(i, n) for (int i = 0, i##_end = (n); i < i##_end; ++i)

static inline float infinity() { return __builtin_inff(); }
static inline float not_a_number() { return __builtin_nanf(""); }

template <typename E, typename Op> static inline E block_reduce(E value, Op) { return value; }

// ---- launching ---------------------------------------------------------------------------------

using RangeBody = void (*)(void *context, long long begin, long long end);
using ParallelFor = void (*)(RangeBody body, void *context, long long count);

template <typename... P> struct Launch {
    void (*kernel)(P...);
    dim3 grid;
    void **arguments;

    template <long long... I> struct Indices {};
    template <long long N, long long... I> struct Count : Count<N - 1, N - 1, I...> {};
    template <long long... I> struct Count<0, I...> { using type = Indices<I...>; };

    template <long long... I> void blocks(long long begin, long long end, Indices<I...>) {
        gridDim = grid;
        for (long long block = begin; block < end; ++block) {
            blockIdx.x = unsigned(block % grid.x);
            blockIdx.y = unsigned(block / grid.x % grid.y);
            blockIdx.z = unsigned(block / grid.x / grid.y);
            kernel(*static_cast<P *>(arguments[I])...);
        }
    }
    static void body(void *self, long long begin, long long end) {
        static_cast<Launch *>(self)->blocks(begin, end, typename Count<sizeof...(P)>::type());
    }
};

template <typename... P>
static void launch(void (*kernel)(P...), const unsigned *grid, void **arguments,
                   ParallelFor parallel_for) {
    Launch<P...> call{kernel, {grid[0], grid[1], grid[2]}, arguments};
    parallel_for(Launch<P...>::body, &call, (long long)grid[0] * grid[1] * grid[2]);
}

// The runtime appends one of these per entry point.
#define EXPORT_LAUNCH(name)                                                                   \
    extern "C" __attribute__((visibility("default"))) void launch_##name(                     \
        const unsigned *grid, void **arguments, ParallelFor parallel_for) {                   \
        launch(name, grid, arguments, parallel_for);                                          \
    }
