// Both gradients of layer_norm.cu in one launch, on cpu alone: of a chunk of rows, which is in
// cache when its columns are added up (rows of more than some 4,000 columns are in L3 at best).
//
// shapes   as there; sums of dy and of dy * xhat (chunks, C)
// bytes    reads dy and x once and writes dx
// geometry one block per chunk of rows_per_chunk rows
#include "norm/layer_norm.cuh"

KERNEL layer_norm_gradients(const T *__restrict__ dy, const T *__restrict__ x,
                            const T *__restrict__ gamma, const acc_t *__restrict__ means,
                            const acc_t *__restrict__ inv_stds, T *__restrict__ dx,
                            acc_t *__restrict__ sums, acc_t *__restrict__ products, int64 rows,
                            int C, int rows_per_chunk) {
    const bool past = past_caches<T>(rows, C);
    const int64 begin = (int64)blockIdx.x * rows_per_chunk;
    const int64 end = smaller(begin + rows_per_chunk, rows);
    for (int64 r = begin; r < end; ++r)
        input_gradient<RowThreads<0>>(dy + r * C, x + r * C, gamma, means[r], inv_stds[r],
                                      dx + r * C, C, past);
    column_sums(dy, x, means, inv_stds, sums, products, begin, end, C);
}
