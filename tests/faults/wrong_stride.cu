// A grid-stride loop whose step is one too long: it skips elements, more with every turn.
#include "dialect/dialect.cuh"

KERNEL wrong_stride(const T *__restrict__ x, T *__restrict__ y, int count) {
    const int first = blockIdx.x * blockDim.x + threadIdx.x;
    for (int i = first; i < count; i += gridDim.x * blockDim.x + 1) y[i] = x[i];  // FAULT
}
