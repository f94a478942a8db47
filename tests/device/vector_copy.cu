// A copy by 16 bytes a load and one by an element a load, which their machine code must tell apart.
#include "dialect/dialect.cuh"

KERNEL vector_copy(const float4 *__restrict__ x, float4 *__restrict__ y, int64 count) {
    GRID_STRIDE(i, count) y[i] = x[i];
}
KERNEL scalar_copy(const float *__restrict__ x, float *__restrict__ y, int64 count) {
    GRID_STRIDE(i, count) y[i] = x[i];
}
