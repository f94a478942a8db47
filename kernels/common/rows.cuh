// Rows whose columns are shared by the threads of a block or of a warp (the class Threads). All of
// these call the functions, with the same arguments.
#pragma once

#include "dialect/lanes.cuh"

struct OfBlock {
    static constexpr bool CACHES = true;  // whether a row may be cached in shared memory
    static __device__ int index() { return threadIdx.x; }
    static __device__ unsigned count() { return blockDim.x; }
    template <class Op> static __device__ acc_t reduce(lanes_t value, Op op) {
        return reduce_lanes<acc_t>(value, op);
    }
};
struct OfWarp {
    static constexpr bool CACHES = true;
    static __device__ int index() { return threadIdx.x % WARP; }
    static __device__ unsigned count() { return WARP; }
    template <class Op> static __device__ acc_t reduce(lanes_t value, Op op) {
        return reduce_warp_lanes<acc_t>(value, op);
    }
};

// Calls body(c, count) for LANES columns from c on at a time; the last call may have fewer.
template <class Threads, class Body>
__device__ __forceinline__ void for_columns(int C, const Body &body) {
    for (int i = Threads::index(); i < C / LANES; i += Threads::count()) body(i * LANES, LANES);
    if (LANES > 1 && C % LANES > 0) body(C - C % LANES, C % LANES);
}
