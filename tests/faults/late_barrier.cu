// Uses one tile twice, without waiting for the others' reads before it is written again.
#include "dialect/dialect.cuh"

KERNEL late_barrier(const T *__restrict__ x, T *__restrict__ y) {
    __shared__ T tile[64];
    for (int turn = 0; turn < 2; ++turn) {
        const int first = (blockIdx.x * 2 + turn) * 64;
        tile[threadIdx.x] = x[first + threadIdx.x];  // FAULT
        __syncthreads();
        y[first + threadIdx.x] = tile[63 - threadIdx.x];
    }
}
