// Adds up a tile of which the launch's threads fill only the first part.
#include "dialect/dialect.cuh"

KERNEL uninitialised_shared(const T *__restrict__ x, T *__restrict__ y, int count) {
    __shared__ T tile[64];
    if (threadIdx.x < count) tile[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    if (threadIdx.x > 0) return;
    T sum = 0;
    for (int i = 0; i < 64; ++i) sum += tile[i];  // FAULT
    y[0] = sum;
}
