// The spills of register_spill.cu, but in a function that the kernel calls.
#include "dialect/dialect.cuh"

__device__ __noinline__ void multiply_reversed(float *x) {
    float held[128];  // FAULT
#pragma unroll
    for (int i = 0; i < 128; ++i) held[i] = x[i * 1024 + threadIdx.x];
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 128; ++i) x[i * 1024 + threadIdx.x + 1] = held[127 - i] * held[i];
}

KERNEL __launch_bounds__(1024) spill_in_call(float *x, float *y) {
    multiply_reversed(x);
    multiply_reversed(y);
}
