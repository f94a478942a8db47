// Copies with a guard that lets one thread too many through.
#include "dialect/dialect.cuh"

KERNEL write_past_end(const T *__restrict__ x, T *__restrict__ y, int count) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i <= count) y[i] = i < count ? x[i] : T(0);  // FAULT
}
