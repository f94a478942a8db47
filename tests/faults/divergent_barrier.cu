// A barrier that only half of the lanes come to, while the others return.
#include "dialect/dialect.cuh"

KERNEL divergent_barrier(const T *__restrict__ x, T *__restrict__ y) {
    __shared__ T tile[64];
    tile[threadIdx.x] = x[threadIdx.x];
    if (threadIdx.x < 32) {
        __syncthreads();  // FAULT
        y[threadIdx.x] = tile[threadIdx.x + 32];
    }
}
