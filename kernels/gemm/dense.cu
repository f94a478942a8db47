// The dense layer y = x w^T + b and its gradients, each one GEMM over plain matrices.
//
//   forward          (N, out)  = x    @ w^T
//   input gradient   (N, in)   = dy   @ w
//   weight gradient  (out, in) = dy^T @ x, divided in parts over the batch
//
// shapes   x (N, in), w (out, in), b (out), y and dy (N, out); partial sums as in Parts
// bytes    x, w and y once each per tile row or column
// geometry as in gemm.cuh; a block's z is the part of k; a part has length `share`
#include "gemm/both.cuh"

KERNEL __launch_bounds__(THREADS, BLOCKS)
dense_forward(const T *__restrict__ x, const T *__restrict__ w, const T *__restrict__ b,
              T *__restrict__ y, acc_t *__restrict__ sums, int *__restrict__ arrived, int rows,
              int inputs, int outputs, int relu, int parts, int share) {
    const auto at = this_block();
    const Share part(inputs, share, at.z);
    gemm<Rows::ALONG_OUTPUT, Rows::ALONG_OUTPUT>(
        at, Matrix{x, inputs}, Matrix{w, inputs}, rows, outputs, part.begin, part.end,
        BiasRelu<>{y, b, outputs, relu, past_caches<T>(rows, outputs)},
        Parts{sums, arrived, parts});
}

// The gradients of weights, and of the input, two products.
//
// weights  dw (out, in) and, unless it is null, db (out), or the sums of each part, `size` elements
//          apart; part s has batch rows [s*batch_share, (s+1)*batch_share)
// input    dx, or PastRelu's gradient
KERNEL __launch_bounds__(THREADS, BLOCKS)
dense_gradients(const T *__restrict__ dy, const T *__restrict__ x, sum_t *__restrict__ dw,
                sum_t *__restrict__ db, int64 size, int batch_share, Blocks of_weights,
                const T *__restrict__ w, T *__restrict__ dx, const T *__restrict__ y,
                const uint8 *__restrict__ argmax, Pooling pooling, acc_t *__restrict__ sums,
                int *__restrict__ arrived, int parts, int share, Blocks of_input, int rows,
                int inputs, int outputs) {
    const auto weights = [&](const auto &at) {
        const Share part(rows, batch_share, at.z);
        gemm<Rows::ALONG_K, Rows::ALONG_K>(
            at, Matrix{dy, outputs}, Matrix{x, inputs}, outputs, inputs, part.begin, part.end,
            Plain<sum_t>{dw + at.z * size, inputs}, ALL_OF_K,
            SumsOverK<Operand::A, sum_t>{db ? db + at.z * size : db});
    };
    const auto input = [&](const auto &at) {
        const Share part(outputs, share, at.z);
        gemm<Rows::ALONG_OUTPUT, Rows::ALONG_K>(
            at, Matrix{dy, outputs}, Matrix{w, inputs}, rows, inputs, part.begin, part.end,
            InputGradient{{dx, y, argmax, pooling}, inputs}, Parts{sums, arrived, parts});
    };
    either(of_weights, weights, of_input, input);
}
