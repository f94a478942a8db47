// A running maximum, and the number of the value that it is: of pools, and of those fused with
// convolutions and batch-norm.
#pragma once

#include "dialect/lanes.cuh"

// Rounds a value to T. A kernel that pools values that it has just computed then finds the same
// maxima as one that reads them back from an array: rounding may make two values equal.
template <typename V> __device__ __forceinline__ V as_stored(V value) {
    if constexpr (sizeof(T) < sizeof(acc_t))
        return V(T(value));
    else
        return value;
}

struct Maximum {
    lanes_t best;
    index_t index;

    Maximum() = default;
    __device__ __forceinline__ Maximum(lanes_t first, int number = 0)
        : best(first), index(index_t{} + number) {}

    __device__ __forceinline__ void meet(lanes_t value, int number) {
        // Negated, so that a NaN wins. A NaN stays the maximum, and so does the first of equal
        // values.
        const auto wins = !(value <= best) & (best == best);
        best = wins ? value : best;
        index = wins ? index_t{} + number : index;
    }
    __device__ __forceinline__ lanes_t clipped(bool relu) const {
        return relu ? (best < 0 ? lanes_t{} : best) : best;
    }
    // The first `count` lanes of both, the maximum clipped below at zero when relu is set.
    __device__ __forceinline__ void store(T *y, uint8 *argmax, int count, bool relu) const {
        store_first(y, clipped(relu), count);
        store_first_whole<acc_t>(argmax, index, count);
    }
};
