// An array indexed by a value of the run: it cannot be in registers, and gets a stack frame.
#include "dialect/dialect.cuh"

KERNEL local_array(const int *__restrict__ bins, int *__restrict__ y, int count) {
    int tally[16] = {};
    for (int i = 0; i < count; ++i) ++tally[bins[i] & 15];  // FAULT
    for (int i = 0; i < 16; ++i) y[i] = tally[i];
}
