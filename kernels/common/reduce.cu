// Ordered sums on `cpu`, so that no result depends on timing. On `cuda` the sums that are needed
// come from products: gemm/sums_over_k.cuh and gemm/gradients.cu.
//
//   column_sum    partial[chunk, c] = sum of x[r, c] over the rows r of one chunk
//   sum_chunks    y[c]              = sum of partial[chunk, c] over the chunks
//   sum_partials  y[i]              = sum of partial[s, i] over s
//
// shapes   x (rows, C); partial (chunks, C) or (splits, count)
// bytes    all once
// geometry column_sum: a block a chunk; sum_chunks: one block; sum_partials: any grid
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
