// 128 values alive at once, in a block whose threads have 64 registers each.
#include "dialect/dialect.cuh"

KERNEL __launch_bounds__(1024) register_spill(float *x) {
    float held[128];  // FAULT
#pragma unroll
    for (int i = 0; i < 128; ++i) held[i] = x[i * 1024 + threadIdx.x];
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 128; ++i) x[i * 1024 + threadIdx.x + 1] = held[127 - i] * held[i];
}
