// Reverses each block's part of x through shared memory, without waiting for the others' writes.
#include "dialect/dialect.cuh"

KERNEL missing_barrier(const T *__restrict__ x, T *__restrict__ y) {
    __shared__ T tile[64];
    tile[threadIdx.x] = x[blockIdx.x * 64 + threadIdx.x];
    y[blockIdx.x * 64 + threadIdx.x] = tile[63 - threadIdx.x];  // FAULT
}
