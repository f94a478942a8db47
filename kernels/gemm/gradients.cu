// The gradients of weights and biases from partial sums.
//
//   dw[c, r], db[i] = the sum of partial over its parts, in order
//
// shapes   partial (parts, rows * columns + biases), in that order; dw (columns, rows); db (biases)
//          or null
// bytes    all once
// geometry any grid, one thread per element
#include "dialect/dialect.cuh"

KERNEL sum_gradients(const acc_t *__restrict__ partial, T *__restrict__ dw, T *__restrict__ db,
                     int rows, int columns, int biases, int parts) {
    const int64 weights = (int64)rows * columns, count = weights + biases;
    GRID_STRIDE(i, count) {
        acc_t sum = 0;
        for (int part = 0; part < parts; ++part) sum += partial[part * count + i];
        if (i < weights) {
            const int row = int(i / columns), column = int(i - (int64)row * columns);
            dw[(int64)column * rows + row] = T(sum);
        } else
            db[i - weights] = T(sum);
    }
}
