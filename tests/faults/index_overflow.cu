// A row's offset taken in 32 bits: wrong once the array passes 2^31 elements.
#include "dialect/dialect.cuh"

KERNEL index_overflow(const uint8 *__restrict__ x, uint8 *__restrict__ y, int row, int width) {
    const int offset = int(uint32(row) * uint32(width));
    y[threadIdx.x] = x[offset + int(threadIdx.x)];  // FAULT
}
