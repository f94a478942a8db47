// The dialect's words on `cpu`: a block has one thread; the system's C++ compiler compiles it.
#pragma once

#include <stdint.h>
#include <string.h>

#include "dialect/math_cpu.cuh"
#include "dialect/registers.cuh"

struct dim3 { unsigned x, y, z; };

#define __global__ inline __attribute__((noinline))  // inline: only exported kernels are compiled
#define __shared__  // shared memory is on the stack of the block's one thread
#define __device__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
// Of a lambda whose calls must be inlined: GCC gives large ones a function of their own, and then
// each row or pixel has a call, and its constants as variables.
#define INLINE __attribute__((always_inline))

// A loop over registers of constant length: unrolled, up to 16 turns.
#define UNROLL(...) _Pragma("GCC unroll 16") for (__VA_ARGS__)
// A loop over a window's pixels: the processor itself begins later turns' loads.
#define UNROLL_TAPS(...) for (__VA_ARGS__)
// A loop of few turns or seldom run.
#define NO_UNROLL(...) for (__VA_ARGS__)

static inline float infinity() { return __builtin_inff(); }
static inline float not_a_number() { return __builtin_nanf(""); }

// The lowest bit that is set; one must be.
static inline int first_bit(unsigned long long bits) { return __builtin_ctzll(bits); }

template <typename E> static inline E sin_pi(E x) { return sin(E(3.141592653589793) * x); }
template <typename E> static inline E cos_pi(E x) { return cos(E(3.141592653589793) * x); }

static constexpr dim3 threadIdx{0, 0, 0}, blockDim{1, 1, 1};
static thread_local dim3 blockIdx, gridDim;
static inline void __syncthreads() {}

// Returns memory of the calling thread, aligned to a SIMD register, for what is too large for its
// stack, which may have 64 KiB. A block asks once: the next call returns the same memory.
using OwnMemory = void *(*)(unsigned long bytes);
static thread_local OwnMemory own_memory;
static thread_local unsigned long dynamic_shared_bytes;
#define DYNAMIC_SHARED(type, name) \
    type *name = static_cast<type *>(own_memory(dynamic_shared_bytes))

// 0, 1, ... N - 1 as a pack; <utility> takes long to read.
template <int... I> struct Indices {};
template <int N, int... I> struct Count : Count<N - 1, N - 1, I...> {};
template <int... I> struct Count<0, I...> { using type = Indices<I...>; };
template <int N> using FirstIndices = typename Count<N>::type;

template <typename E> struct Simd {
    typedef E type __attribute__((vector_size(REGISTER_BYTES)));
    using index = decltype(type{} < type{});  // whole numbers of the same count and width
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
// Has the compiler load a value once that several multiply-adds use. For AVX2, GCC reads it from
// memory in each of them, although registers are free, and the loads take longer than the
// arithmetic.
template <typename V> static inline V in_register(V value) {
#if defined(__AVX__) && !defined(__AVX512F__)
    asm("" : "+x"(value));
#endif
    return value;
}
// Lanes of a and b by number; those of b follow those of a.
template <int... L, typename V> static inline V shuffle(V a, V b) {
#if defined(__clang__)
    return __builtin_shufflevector(a, b, L...);
#else
    return __builtin_shuffle(a, b, decltype(a < b){L...});
#endif
}
// 0, 1, 2, ...
template <typename E> static inline typename Simd<E>::index lane_numbers() {
    typename Simd<E>::index number;
    UNROLL(int i = 0; i < Simd<E>::LANES; ++i) number[i] = i;
    return number;
}

#include "dialect/first_lanes_cpu.cuh"

// Stores the first `count` lanes of N registers of neighbours.
template <typename E, typename V, int N>
static inline void store_row(E *p, const V (&value)[N], int count) {
    constexpr int LANES = Simd<E>::LANES;
    UNROLL(int v = 0; v < N; ++v) store_first(p + v * LANES, value[v], count - v * LANES);
}

// Prefetches `count` elements, 8 KB or `distance` elements ahead. The processor's own prefetcher
// follows few runs at a time, and stops at the end of a page of 4 KB.
template <typename E>
static inline void fetch_ahead(const E *p, int count = 1, int distance = 8192 / sizeof(E)) {
    constexpr int LINE = 64 / sizeof(E);
    UNROLL(int i = 0; i < count; i += LINE) __builtin_prefetch(p + distance + i);
    asm volatile("");  // GCC takes functions that prefetch alone for ones without effect
}

// Bytes from which an array is written by streaming stores: the runtime passes it, editors see
// this.
#ifndef STREAM_BYTES
#define STREAM_BYTES (1 << 24)
#endif

// Whether an array is larger than the caches and its rows are whole cache lines: then use streaming
// stores. (A line written partly by a normal and partly by a streaming store takes longer.)
template <typename E> static inline bool past_caches(long long rows, int columns) {
    const long long bytes = columns * (long long)sizeof(E);
    return rows * bytes >= STREAM_BYTES && bytes % 64 == 0;
}
// A streaming store of a whole register, to an address aligned to one.
template <typename E> static inline void stream_lanes(E *p, typename Simd<E>::type value) {
#if defined(__clang__)
    __builtin_nontemporal_store(value, reinterpret_cast<typename Simd<E>::type *>(p));
#elif defined(__AVX512F__)
    typedef long long whole_t __attribute__((vector_size(64)));
    __builtin_ia32_movntdq512(reinterpret_cast<whole_t *>(p), (whole_t)value);
#elif defined(__AVX__)
    typedef float whole_t __attribute__((vector_size(32)));
    __builtin_ia32_movntps256(reinterpret_cast<float *>(p), (whole_t)value);
#else
    store_lanes(p, value);
#endif
}
static inline void finish_streaming() {
#if defined(__SSE__)
    __builtin_ia32_sfence();
#endif
}
// store_first in a loop over neighbours, for an array that is not read. With `past`, whole lines
// are streaming stores: a normal store would first read the line that it overwrites.
template <typename E>
static inline void write_first(E *p, typename Simd<E>::type value, int count, bool past) {
    if (past && count >= Simd<E>::LANES && reinterpret_cast<uintptr_t>(p) % REGISTER_BYTES == 0)
        return stream_lanes(p, value);
    fetch_ahead(p);
    store_first(p, value, count);
}

#include "dialect/exp_cpu.cuh"

// Atomic, since blocks run on several cores at once.
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

// A loop over a fixed number of neighbouring elements, compiled to SIMD code.
#define LANE_LOOP(v, V) _Pragma("omp simd") for (int v = 0; v < (V); ++v)
// The first `count` of them.
#define FIRST_LANES(v, V, count) _Pragma("omp simd") for (int v = 0; v < (count); ++v)

// A block takes one contiguous chunk: a plain loop over neighbours.
#define GRID_STRIDE(i, n)                                                   \
    for (long long i = (n) * (long long)blockIdx.x / gridDim.x,             \
                   i##_end = (n) * ((long long)blockIdx.x + 1) / gridDim.x; \
         i < i##_end; ++i)
#define BLOCK_STRIDE(i, n) for (int i = 0, i##_end = (n); i < i##_end; ++i)

// A block takes a contiguous chunk of the rows.
#define BLOCK_ROWS(row, rows) GRID_STRIDE(row, rows)

constexpr int WARP = 1;  // threads of a warp

template <typename E, typename Op> static inline E block_reduce(E value, Op) { return value; }
// Reduces over lanes, too, by halves: one lane after the other would be a longer chain.
template <typename E, int COUNT = Simd<E>::LANES, typename V, typename Op>
static inline E reduce_lanes(V value, Op op) {
    if constexpr (COUNT == 2)
        return op(value[0], value[1]);
    else {
        typedef E half_t __attribute__((vector_size(COUNT / 2 * sizeof(E))));
        half_t half[2];
        memcpy(half, &value, sizeof value);
        return reduce_lanes<E, COUNT / 2>(op(half[0], half[1]), op);
    }
}

// Whether the block is the last of `blocks` to come here. It then sees what the others have
// written. The counter is zero before and after.
static inline bool last_block(int *arrived, unsigned blocks) {
    if (unsigned(__atomic_add_fetch(arrived, 1, __ATOMIC_ACQ_REL)) < blocks) return false;
    *arrived = 0;
    return true;
}

// ---- launching ---------------------------------------------------------------------------------

// What a launch begins with: the blocks along x, y and z, and the bytes of dynamic shared memory.
struct Grid { unsigned x, y, z, shared_bytes; };

// Where the members of a structure of these types lie.
template <typename... P> struct Places {
    size_t at[sizeof...(P)] = {};

    constexpr Places() {
        constexpr size_t SIZES[] = {sizeof(P)...}, ALIGNMENTS[] = {alignof(P)...};
        size_t end = 0;
        for (size_t i = 0; i < sizeof...(P); ++i) {
            at[i] = (end + ALIGNMENTS[i] - 1) / ALIGNMENTS[i] * ALIGNMENTS[i];
            end = at[i] + SIZES[i];
        }
    }
};

// A kernel with its arguments, packed as the members of a structure after the grid.
template <typename... P> struct Call {
    static constexpr Places<Grid, P...> PLACES = {};

    void (*kernel)(P...);
    const char *packed;

    template <int... I> void unpack(Indices<I...>) const {
        kernel(*reinterpret_cast<const P *>(packed + PLACES.at[I + 1])...);
    }
    void operator()() const { unpack(FirstIndices<sizeof...(P)>()); }
};

using RangeBody = void (*)(void *context, OwnMemory, long long begin, long long end);
using ParallelFor = void (*)(RangeBody body, void *context, long long count);

template <typename... P> struct Launch {
    Call<P...> call;
    const Grid &grid;

    void blocks(long long begin, long long end) const {
        gridDim = {grid.x, grid.y, grid.z};
        dynamic_shared_bytes = grid.shared_bytes;
        for (long long block = begin; block < end; ++block) {
            blockIdx.x = unsigned(block % grid.x);
            blockIdx.y = unsigned(block / grid.x % grid.y);
            blockIdx.z = unsigned(block / grid.x / grid.y);
            call();
        }
        finish_streaming();  // before the launch ends
    }
    static void body(void *self, OwnMemory memory, long long begin, long long end) {
        own_memory = memory;
        static_cast<Launch *>(self)->blocks(begin, end);
    }
};

template <typename... P>
static void launch(void (*kernel)(P...), const char *packed, ParallelFor parallel_for) {
    const Grid &grid = *reinterpret_cast<const Grid *>(packed);
    Launch<P...> self{{kernel, packed}, grid};
    parallel_for(Launch<P...>::body, &self, (long long)grid.x * grid.y * grid.z);
}

// The runtime appends this for the entry point of a library.
#define EXPORT_LAUNCH(name)                                               \
    extern "C" __attribute__((visibility("default"))) void launch_##name( \
        const char *packed, ParallelFor parallel_for) {                   \
        launch(::name, packed, parallel_for);                             \
    }
