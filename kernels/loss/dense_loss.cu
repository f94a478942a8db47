// The last layer of a classifier with its loss: logits, row losses and the gradient of their mean.
//
//   logits  = x w^T + b                     as dense_forward of dense.cu has them
//   losses, dlogits                         as softmax_cross_entropy_rows of softmax.cu, divided by
//                                           the number of labels that count
//
// The last block to finish counts the batch, as count.cuh has it, unless `totals` is null.
//
// A block computes whole rows of logits, then their losses while they are in cache. So a row must
// not have more classes than a tile has columns, and the grid's y is 1. There are few logits and
// many inputs: so k is divided, and of the blocks of a tile the last one to finish goes on.
//
// shapes   x (rows, inputs), w (classes, inputs), b (classes) or null, labels and losses (rows),
//          logits, dlogits (rows, classes)
// bytes    x, logits, dlogits once, w once per tile
// geometry as in gemm.cuh, then a thread takes a row of few classes, a warp one of more
#include "gemm/gemm.cuh"
#include "loss/softmax.cuh"
#include "step/count.cuh"

KERNEL __launch_bounds__(THREADS, BLOCKS)
dense_cross_entropy(const T *__restrict__ x, const T *__restrict__ w, const T *__restrict__ b,
                    const int64 *__restrict__ labels, T *__restrict__ logits,
                    acc_t *__restrict__ losses, T *__restrict__ dlogits,
                    double *__restrict__ totals, int64 *__restrict__ counters,
                    int *__restrict__ finished, acc_t *__restrict__ sums, int *__restrict__ arrived,
                    int rows, int inputs, int classes, int parts, int share, int64 ignored,
                    double smoothing) {
    const auto at = this_block();
    const Share part(inputs, share, at.z);
    const Block block = gemm<Rows::ALONG_OUTPUT, Rows::ALONG_OUTPUT>(
        at, Matrix{x, inputs}, Matrix{w, inputs}, rows, classes, part.begin, part.end,
        BiasRelu<>{logits, b, classes, 0}, Parts{sums, arrived, parts});
    if (!block.stored) return;
    int counted = 0;
    BLOCK_STRIDE(row, rows) counted += counts(labels[row], classes, ignored);
    counted = block_reduce(counted, Sum());  // its barriers also complete the block's logits
    const acc_t scale = acc_t(1) / acc_t(counted);
    for_block_rows<BN>(block.m0, block.m1, classes, [&](auto threads, int row) {
        using Threads = decltype(threads);
        const int64 first = (int64)row * classes;
        const acc_t loss =
            cross_entropy_row<Threads>(logits + first, dlogits + first, nullptr, false, labels[row],
                                       nullptr, scale, classes, ignored, acc_t(smoothing));
        if (Threads::index() == 0) losses[row] = loss;
    });
    if (totals && last_block(finished, gridDim.x))
        count_rows(losses, logits, labels, totals, counters, rows, classes);
}
