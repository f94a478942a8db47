// A mask of the lower half, but the partner is in the upper one.
#include "dialect/dialect.cuh"

KERNEL shuffle_from_outside(const T *__restrict__ x, T *__restrict__ y) {
    if (threadIdx.x >= 16) return;
    y[threadIdx.x] = __shfl_xor_sync(0x0000ffffu, x[threadIdx.x], 16);  // FAULT
}
