// The dense layer y = x w^T + b and its gradients, each one GEMM over plain matrices.
//
//   forward          (N, out)  = x    @ w^T
//   input gradient   (N, in)   = dy   @ w
//   weight gradient  (out, in) = dy^T @ x, split in parts over the batch
//
// The sums are partial where there are several splits of k.
//
// shapes   x (N, in), w (out, in), b (out), y and dy (N, out)
// bytes    x, w and y once each per tile row or column
// geometry as in gemm.cuh; blockIdx.z is the split
#include "gemm/gemm.cuh"

KERNEL __launch_bounds__(THREADS, BLOCKS)
dense_forward(const T *__restrict__ x, const T *__restrict__ w, const T *__restrict__ b,
              T *__restrict__ y, int rows, int inputs, int outputs, int relu) {
    gemm<Rows::ALONG_OUTPUT, Rows::ALONG_OUTPUT>(
        Matrix{x, inputs}, Matrix{w, inputs}, rows, outputs, 0, inputs,
        BiasRelu<>{y, b, outputs, relu, past_caches<T>(rows, outputs)});
}

// The same without bias and ReLU, as partial sums (splits, N, out); split s takes inputs [s*share,
// (s+1)*share).
KERNEL __launch_bounds__(THREADS, BLOCKS)
dense_partial(const T *__restrict__ x, const T *__restrict__ w, acc_t *__restrict__ partial,
              int rows, int inputs, int outputs, int share) {
    const Share part(inputs, share);
    gemm<Rows::ALONG_OUTPUT, Rows::ALONG_OUTPUT>(
        Matrix{x, inputs}, Matrix{w, inputs}, rows, outputs, part.begin, part.end,
        Plain<acc_t>{partial + (int64)blockIdx.z * rows * outputs, outputs});
}

// Partial sums (splits, N, in); split s takes outputs [s*share, (s+1)*share).
KERNEL __launch_bounds__(THREADS, BLOCKS)
dense_input_gradient(const T *__restrict__ dy, const T *__restrict__ w, sum_t *__restrict__ partial,
                     int rows, int inputs, int outputs, int share) {
    const Share part(outputs, share);
    gemm<Rows::ALONG_OUTPUT, Rows::ALONG_K>(
        Matrix{dy, outputs}, Matrix{w, inputs}, rows, inputs, part.begin, part.end,
        Plain<sum_t>{partial + (int64)blockIdx.z * rows * inputs, inputs});
}

// Partial sums (splits, out, in); split s takes batch rows [s*share, (s+1)*share).
KERNEL __launch_bounds__(THREADS, BLOCKS)
dense_weight_gradient(const T *__restrict__ dy, const T *__restrict__ x,
                      sum_t *__restrict__ partial, int outputs, int inputs, int rows, int share) {
    const Share part(rows, share);
    gemm<Rows::ALONG_K, Rows::ALONG_K>(
        Matrix{dy, outputs}, Matrix{x, inputs}, outputs, inputs, part.begin, part.end,
        Plain<sum_t>{partial + (int64)blockIdx.z * outputs * inputs, inputs});
}
