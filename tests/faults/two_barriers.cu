// Two barriers in two branches: every lane waits, but not at the same one.
#include "dialect/dialect.cuh"

KERNEL two_barriers(const T *__restrict__ x, T *__restrict__ y) {
    if (threadIdx.x % 2 == 0) {
        y[threadIdx.x] = x[threadIdx.x];
        __syncthreads();  // FAULT
    } else {
        __syncthreads();
        y[threadIdx.x] = 0;
    }
}
