// 64 KiB of shared memory, more than a block has unless the launch asks for it.
#include "dialect/dialect.cuh"

KERNEL too_much_shared(const T *__restrict__ x, T *__restrict__ y) {
    __shared__ T tile[16384];
    for (int i = threadIdx.x; i < 16384; i += blockDim.x) tile[i] = x[threadIdx.x];  // FAULT
    __syncthreads();
    y[threadIdx.x] = tile[threadIdx.x];
}
