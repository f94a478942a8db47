// The dense layer y = x w^T + b and its gradients, each one GEMM over plain matrices.
//
//   forward          (N, out)  = x    @ w^T
//   input gradient   (N, in)   = dy   @ w
//   weight gradient  (out, in) = dy^T @ x, split in parts over the batch
//
// shapes   x (N, in), w (out, in), b (out), y and dy (N, out)
// bytes    x, w and y once each per tile row or column
// geometry as in gemm.cuh; blockIdx.z is the split of the weight gradient
#include "gemm.cuh"

KERNEL __launch_bounds__(THREADS, BLOCKS)
dense_forward(const T *__restrict__ x, const T *__restrict__ w, const T *__restrict__ b,
              T *__restrict__ y, int rows, int inputs, int outputs, int relu) {
    gemm<Rows::ALONG_OUTPUT, Rows::ALONG_OUTPUT>(
        Matrix{x, inputs}, Matrix{w, inputs}, rows, outputs, 0, inputs,
        BiasRelu<>{y, b, outputs, relu, past_caches<T>(rows, outputs)});
}

KERNEL __launch_bounds__(THREADS, BLOCKS)
dense_input_gradient(const T *__restrict__ dy, const T *__restrict__ w, T *__restrict__ dx,
                     int rows, int inputs, int outputs) {
    gemm<Rows::ALONG_OUTPUT, Rows::ALONG_K>(Matrix{dy, outputs}, Matrix{w, inputs}, rows, inputs, 0,
                                            outputs, Plain<T>{dx, inputs});
}

// Partial sums (splits, out, in); split s takes batch rows [s*share, (s+1)*share).
KERNEL __launch_bounds__(THREADS, BLOCKS)
dense_weight_gradient(const T *__restrict__ dy, const T *__restrict__ x,
                      acc_t *__restrict__ partial, int rows, int inputs, int outputs, int share) {
    const int begin = blockIdx.z * share, end = smaller(rows, begin + share);
    const Plain<acc_t> epilogue{partial + (int64)blockIdx.z * outputs * inputs, inputs};
    gemm<Rows::ALONG_K, Rows::ALONG_K>(Matrix{dy, outputs}, Matrix{x, inputs}, outputs, inputs,
                                       begin, end, epilogue);
}
