// A sum over a warp whose upper half has left: the mask names lanes that take no part.
#include "dialect/dialect.cuh"

KERNEL wrong_mask(const T *__restrict__ x, T *__restrict__ y) {
    if (threadIdx.x >= 16) return;
    T sum = x[threadIdx.x];
    for (int bits = 8; bits > 0; bits /= 2)
        sum += __shfl_xor_sync(0xffffffffu, sum, bits);  // FAULT
    y[threadIdx.x] = sum;
}
