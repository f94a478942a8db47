// Both gradients of layer_norm.cu in one launch, for a chunk of rows at a time.
//
// shapes   as there; sums of dy and of dy * xhat (chunks, C)
// bytes    reads dy and x once and writes dx. On cuda registers hold the rows and the sums of their
//          columns; on cpu the chunk is in cache when columns are added up (rows of more than some
//          4,000 are in L3 at best)
// geometry one block per chunk of rows_per_chunk rows, which it takes as rows.cuh has it
#include "norm/layer_norm.cuh"

using Threads = RowThreads<ROW_THREADS, ROW_SPANS>;

KERNEL __launch_bounds__(Threads::MOST, 1)
layer_norm_gradients(const T *__restrict__ dy, const T *__restrict__ x, const T *__restrict__ gamma,
                     const acc_t *__restrict__ means, const acc_t *__restrict__ inv_stds,
                     T *__restrict__ dx, acc_t *__restrict__ sums, acc_t *__restrict__ products,
                     int64 rows, int C, int rows_per_chunk) {
    const bool past = past_caches<T>(rows, C);
    const int64 begin = (int64)blockIdx.x * rows_per_chunk;
    const int64 end = smaller(begin + rows_per_chunk, rows);
    GradientSums<Threads> columns;
    each_row_of_block<Threads>(begin, end, [&](int64 r) {
        const acc_t mean = means[r], inv_std = inv_stds[r];
        input_gradient<Threads>(dy + r * C, x + r * C, gamma, mean, inv_std, dx + r * C, C, past,
                                [&](const Span &at, const columns_t &dy, const columns_t &centred) {
                                    columns.add(at, dy, centred * inv_std);
                                });
    });
    columns.store(dy, x, means, inv_stds, sums, products, begin, end, C);
}
