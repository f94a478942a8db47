// A sum that every block adds to without an atomic operation.
#include "dialect/dialect.cuh"

KERNEL block_race(const T *__restrict__ x, T *__restrict__ y) {
    y[0] += x[blockIdx.x];  // FAULT
}
