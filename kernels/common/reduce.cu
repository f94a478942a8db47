// Sums over rows, in two ordered passes, so that no result depends on timing. A single chunk needs
// one.
//
//   column_sum    partial[chunk, c] = sum of x[r, c] over the rows r of one chunk
//   sum_chunks    y[c]              = sum of partial[chunk, c] over the chunks
//   sum_partials  y[i]              = sum of partial[s, i] over s, in order
//   sum_columns   y[j, i]           = sum of partial[s, i, j] over s, in order
//
// shapes   x (rows, C); partial (chunks, C), (splits, count) or (splits, rows, columns)
// bytes    x once; the partial sums are rows / chunk times smaller
// geometry column_sum: a block a chunk; sum_chunks: one block; of both, blocks along y share the
//          channels on cuda; the others: any grid, one thread an element
#include "common/sums.cuh"

KERNEL column_sum(const T *__restrict__ x, acc_t *__restrict__ partial, int64 rows, int C,
                  int rows_per_chunk) {
    const int64 begin = (int64)blockIdx.x * rows_per_chunk;
    acc_t *own = partial + (int64)blockIdx.x * C;
    sum_rows(x, begin, smaller(begin + rows_per_chunk, rows), C,
             [=](auto at, const auto &sum) { at.store(own + at.first, sum); });
}

KERNEL sum_chunks(const acc_t *__restrict__ partial, T *__restrict__ y, int chunks, int C) {
    sum_rows(partial, 0, chunks, C, [=](auto at, const auto &sum) { at.store(y + at.first, sum); });
}

KERNEL sum_partials(const acc_t *__restrict__ partial, T *__restrict__ y, int64 count, int splits) {
    GRID_STRIDE(i, count) {
        acc_t sum = 0;
        for (int s = 0; s < splits; ++s) sum += partial[s * count + i];
        y[i] = T(sum);
    }
}

KERNEL sum_columns(const acc_t *__restrict__ partial, T *__restrict__ y, int rows, int columns,
                   int splits) {
    GRID_STRIDE(item, (int64)rows * columns) {
        const int row = int(item / columns), column = int(item - (int64)row * columns);
        acc_t sum = 0;
        for (int s = 0; s < splits; ++s) sum += partial[(int64)s * rows * columns + item];
        y[(int64)column * rows + row] = T(sum);
    }
}
