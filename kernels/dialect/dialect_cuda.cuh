// The dialect's words on `cuda`, compiled by NVRTC, besides CUDA's own: a block has many threads.
#pragma once

// A loop over registers of constant length: unrolled.
#define UNROLL(...) _Pragma("unroll") for (__VA_ARGS__)
// A loop over a window's pixels, of constant length: four turns are unrolled.
#define UNROLL_TAPS(...) _Pragma("unroll 4") for (__VA_ARGS__)
// A loop of few turns or seldom run, which the compiler would unroll: only more code.
#define NO_UNROLL(...) _Pragma("unroll 1") for (__VA_ARGS__)

// Of a lambda: NVRTC inlines all of them.
#define INLINE

__device__ inline float infinity() { return __int_as_float(0x7f800000); }
__device__ inline float not_a_number() { return __int_as_float(0x7fffffff); }

// sin and cos of pi x. (In radians, the reduction of a large double would take a stack frame.)
template <typename E> __device__ inline E sin_pi(E x) { return sinpi(x); }
template <typename E> __device__ inline E cos_pi(E x) { return cospi(x); }

// The block's dynamic shared memory, of the size that the launch asks for.
#define DYNAMIC_SHARED(type, name)                                        \
    extern __shared__ __align__(16) unsigned char dynamic_shared_bytes[]; \
    type *name = reinterpret_cast<type *>(dynamic_shared_bytes)

// The lowest bit that is set; one must be.
__device__ inline int first_bit(unsigned long long bits) { return __ffsll(bits) - 1; }

// The elements that a thread computes at once: one, since lanes are threads here.
template <typename E> struct Simd {
    using type = E;
    using index = int;
    static constexpr int LANES = 1;
};
template <typename E> __device__ inline E load_lanes(const E *p) { return *p; }
template <typename E> __device__ inline void store_lanes(E *p, E value) { *p = value; }
// The first `count` lanes, at most all, none if `count` is not positive. The other lanes are zero.
template <typename E> __device__ inline E load_first(const E *p, int count) {
    return count > 0 ? *p : E(0);
}
template <typename E, typename V> __device__ inline void store_first(E *p, V value, int count) {
    if (count > 0) *p = E(value);
}
// N neighbours in memory, accessed at once.
template <typename E, int N> struct alignas(sizeof(E) * N < 16 ? sizeof(E) * N : 16) Vector {
    E value[N];
    static __device__ bool fits(const E *p, int count) {
        return count >= N && (unsigned long long)p % alignof(Vector) == 0;
    }
};
// At an address that is aligned to Vector.
template <int N, typename E, typename V>
__device__ inline void load_vector(V (&value)[N], const E *from) {
    const Vector<E, N> row = *reinterpret_cast<const Vector<E, N> *>(from);
    for (int i = 0; i < N; ++i) value[i] = V(row.value[i]);
}
template <int N, typename E, typename V>
__device__ inline void store_vector(E *to, const V (&value)[N]) {
    Vector<E, N> row;
    for (int i = 0; i < N; ++i) row.value[i] = E(value[i]);
    *reinterpret_cast<Vector<E, N> *>(to) = row;
}
// The halves of an array.
template <typename V, int N> using Halves = V[2][N / 2];
template <typename V, int N> __device__ inline Halves<V, N> &halves(V (&value)[N]) {
    return reinterpret_cast<Halves<V, N> &>(value);
}
// The first `count` of N neighbours, at any address; load_row sets the others to zero. They are one
// access if they can be; else, of narrow elements, their halves may be.
template <typename E, typename V, int N>
__device__ inline void load_row(V (&value)[N], const E *from, int count) {
    if (Vector<E, N>::fits(from, count)) return load_vector(value, from);
    if constexpr (N > 4 && sizeof(E) < 4)
        for (int h = 0; h < 2; ++h)
            load_row(halves(value)[h], from + h * (N / 2), count - h * (N / 2));
    else
        for (int i = 0; i < N; ++i) value[i] = i < count ? V(from[i]) : V(0);
}
template <typename E, typename V, int N>
__device__ inline void store_row(E *to, const V (&value)[N], int count) {
    if (Vector<E, N>::fits(to, count)) return store_vector(to, value);
    if constexpr (N > 4 && sizeof(E) < 4)
        for (int h = 0; h < 2; ++h)
            store_row(to + h * (N / 2), halves(value)[h], count - h * (N / 2));
    else
        for (int i = 0; i < N; ++i)
            if (i < count) to[i] = E(value[i]);
}
// A prefetch. None here: other threads hide the latency of memory.
template <typename E> __device__ inline void fetch_ahead(const E *, int = 1, int = 0) {}

// Has the compiler keep a value, word by word. It would compute again, in every stage, what follows
// from a thread's number and the arguments.
template <typename V> __device__ __forceinline__ V in_register(V value) {
    static_assert(sizeof(V) % 4 == 0, "whole words");
    unsigned words[sizeof(V) / 4];
    memcpy(words, &value, sizeof value);
    UNROLL(int i = 0; i < int(sizeof(V) / 4); ++i) asm volatile("" : "+r"(words[i]));
    memcpy(&value, words, sizeof value);
    return value;
}

// Stores to an array that is not read; on cpu they may bypass the caches, see dialect_cpu.cuh.
template <typename E> __device__ inline bool past_caches(long long, int) { return false; }
template <typename E, typename V>
__device__ inline void write_first(E *p, V value, int count, bool) {
    store_first(p, value, count);
}

// Whole numbers of another type, the first `count` of them; the others are undefined.
template <typename E, typename Whole>
__device__ inline int load_first_whole(const Whole *p, int count) {
    return count > 0 ? int(*p) : 0;
}
template <typename E, typename Whole>
__device__ inline void store_first_whole(Whole *p, int value, int count) {
    if (count > 0) *p = Whole(value);
}
// One bit per lane, set where a comparison holds.
template <typename E> __device__ inline unsigned long long lane_bits(bool holds) { return holds; }
template <typename E> __device__ inline E exp_lanes(E x) { return exp(x); }

// A loop over a fixed number of neighbouring elements, held in registers.
#define LANE_LOOP(v, V) _Pragma("unroll") for (int v = 0; v < (V); ++v)
// The first `count` of them. The loop keeps its constant length: otherwise the elements would be
// kept in memory, not in registers.
#define FIRST_LANES(v, V, count) \
    LANE_LOOP(v, V)              \
        if (v < (count))

// Neighbouring threads access neighbouring elements.
#define GRID_STRIDE(i, n)                                                               \
    for (long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x, i##_end = (n); \
         i < i##_end; i += (long long)gridDim.x * blockDim.x)
#define BLOCK_STRIDE(i, n) for (int i = threadIdx.x; i < (n); i += blockDim.x)
// Blocks take rows in turn, one each if there are enough blocks.
#define BLOCK_ROWS(row, rows) for (long long row = blockIdx.x; row < (rows); row += gridDim.x)

constexpr int WARP = 32;  // threads of a warp

// Reductions over a warp or a block. Every thread of it must call, and gets the result. The order
// is fixed (butterfly within warps, then over warps), so the result is bitwise repeatable.
template <typename E, typename Op> __device__ E warp_reduce(E value, Op op) {
    for (int offset = WARP / 2; offset > 0; offset /= 2)
        value = op(value, __shfl_xor_sync(0xffffffffu, value, offset));
    return value;
}
template <typename E, typename Op> __device__ E block_reduce(E value, Op op) {
    __shared__ E partial[32];
    const int warp = threadIdx.x / WARP, warps = (blockDim.x + WARP - 1) / WARP;
    value = warp_reduce(value, op);
    if (threadIdx.x % WARP == 0) partial[warp] = value;
    __syncthreads();
    value = partial[0];
    for (int i = 1; i < warps; ++i) value = op(value, partial[i]);
    __syncthreads();  // the next reduction may overwrite `partial`
    return value;
}
// Whether the block is the last of `blocks` to come here, in all its threads. It then sees what the
// others have written. The counter is zero before and after.
__device__ inline bool last_block(int *arrived, unsigned blocks) {
    __threadfence();
    __syncthreads();  // what the block has written is visible to all blocks
    const bool last = threadIdx.x == 0 && atomicInc(reinterpret_cast<unsigned *>(arrived),
                                                    blocks - 1) == blocks - 1;  // then zero again
    if (!__syncthreads_or(last)) return false;
    __threadfence();
    return true;
}
