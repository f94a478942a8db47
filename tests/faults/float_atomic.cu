// A sum by float atomics: right, but another bit pattern with every order of the threads.
#include "dialect/dialect.cuh"

KERNEL float_atomic(const T *__restrict__ x, T *__restrict__ y, int count) {
    GRID_STRIDE(i, count) atomicAdd(y, x[i]);  // FAULT
}
