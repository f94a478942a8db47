// A barrier follows a copy's beginning, but no wait: it may still be on its way.
#include "dialect/async_copy.cuh"

KERNEL missing_wait(const T *__restrict__ x, T *__restrict__ y) {
    __shared__ float tile[64];
    copy_async<4>(tile + threadIdx.x, x + threadIdx.x);
    commit_copies();
    __syncthreads();
    y[threadIdx.x] = tile[63 - threadIdx.x];  // FAULT
}
