// The dense layer y = x w^T + b and its gradients, each one GEMM over plain matrices.
//
//   forward          (N, out)  = x    @ w^T
//   input gradient   (N, in)   = dy   @ w
//   weight gradient  (out, in) = dy^T @ x, divided in parts over the batch
//
// shapes   x (N, in), w (out, in), b (out), y and dy (N, out); partial sums as in Parts
// bytes    x, w and y once each per tile row or column
// geometry as in gemm.cuh; blockIdx.z is the part of k; a part has length `share`
#include "gemm/gemm.cuh"

KERNEL __launch_bounds__(THREADS, BLOCKS)
dense_forward(const T *__restrict__ x, const T *__restrict__ w, const T *__restrict__ b,
              T *__restrict__ y, acc_t *__restrict__ sums, int *__restrict__ arrived, int rows,
              int inputs, int outputs, int relu, int parts, int share) {
    const Share part(inputs, share);
    gemm<Rows::ALONG_OUTPUT, Rows::ALONG_OUTPUT>(
        Matrix{x, inputs}, Matrix{w, inputs}, rows, outputs, part.begin, part.end,
        BiasRelu<>{y, b, outputs, relu, past_caches<T>(rows, outputs)},
        Parts{sums, arrived, (int64)rows * outputs, outputs, 0, parts, int(blockIdx.z)});
}

// dx, or PastRelu's gradient.
KERNEL __launch_bounds__(THREADS, BLOCKS)
dense_input_gradient(const T *__restrict__ dy, const T *__restrict__ w, T *__restrict__ dx,
                     const T *__restrict__ y, const uint8 *__restrict__ argmax, Pooling pooling,
                     acc_t *__restrict__ sums, int *__restrict__ arrived, int rows, int inputs,
                     int outputs, int parts, int share) {
    const Share part(outputs, share);
    gemm<Rows::ALONG_OUTPUT, Rows::ALONG_K>(
        Matrix{dy, outputs}, Matrix{w, inputs}, rows, inputs, part.begin, part.end,
        InputGradient{{dx, y, argmax, pooling}, inputs},
        Parts{sums, arrived, (int64)rows * inputs, inputs, 0, parts, int(blockIdx.z)});
}

// dw (out, in) and, unless it is null, db (out), or the sums of each part, `size` elements apart;
// part s has batch rows [s*share, (s+1)*share).
KERNEL __launch_bounds__(THREADS, BLOCKS)
dense_weight_gradient(const T *__restrict__ dy, const T *__restrict__ x, sum_t *__restrict__ dw,
                      sum_t *__restrict__ db, int outputs, int inputs, int rows, int64 size,
                      int share) {
    const Share part(rows, share);
    sum_t *const weights = dw + blockIdx.z * size;
    gemm<Rows::ALONG_K, Rows::ALONG_K>(
        Matrix{dy, outputs}, with_ones(Matrix{x, inputs}, inputs), outputs,
        inputs + (db != nullptr), part.begin, part.end,
        WeightGradient{{weights, inputs}, db ? db + blockIdx.z * size : db});
}
