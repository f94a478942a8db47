// A copy begins to overwrite what another lane may still have to read.
#include "dialect/async_copy.cuh"

KERNEL copy_overtakes(const T *__restrict__ x, T *__restrict__ y) {
    __shared__ float tile[64];
    tile[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    y[threadIdx.x] = tile[63 - threadIdx.x];
    copy_async<4>(tile + threadIdx.x, x + threadIdx.x);
    commit_copies();
    wait_copies<0>();
}
