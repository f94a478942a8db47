// A row's offset in a signed product that passes 2^31: undefined in C++.
#include "dialect/dialect.cuh"

KERNEL signed_overflow(T *__restrict__ y, int row, int width) {
    const int offset = row * width;  // FAULT
    y[threadIdx.x] = T(offset);
}
