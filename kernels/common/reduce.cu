// Sums of partial results, in a fixed order, so that no result depends on timing.
//
//   y[i] = sum of partial[s, i] over s
//
// shapes   partial (splits, count); y (count)
// bytes    all once
// geometry any grid, one thread per element
#include "dialect/dialect.cuh"

KERNEL sum_partials(const acc_t *__restrict__ partial, T *__restrict__ y, int64 count, int splits) {
    GRID_STRIDE(i, count) {
        acc_t sum = 0;
        for (int s = 0; s < splits; ++s) sum += partial[s * count + i];
        y[i] = T(sum);
    }
}
