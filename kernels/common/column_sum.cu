// Sums over rows on `cpu`, in two ordered passes, so that no result depends on timing; a single
// chunk needs only the first. On `cuda`, products compute the sums; see gemm/ones.cuh.
//
//   column_sum    partial[chunk, c] = sum of x[r, c] over the rows r of one chunk
//   sum_chunks    y[c]              = sum of partial[chunk, c] over the chunks
//
// shapes   x (rows, C); partial (chunks, C)
// bytes    x once; the partial sums are rows / chunk times smaller
// geometry column_sum: one block per chunk; sum_chunks: one block
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
