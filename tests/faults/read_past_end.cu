// Differences of neighbours; the last thread reads one element too far.
#include "dialect/dialect.cuh"

KERNEL read_past_end(const T *__restrict__ x, T *__restrict__ y, int count) {
    GRID_STRIDE(i, count) y[i] = x[i + 1] - x[i];  // FAULT
}
