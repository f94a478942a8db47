// A convolution's filters with the batch-norm that follows it folded in, for inference.
//
//   scale[f]    = gamma[f] / sqrt(variance[f] + eps)
//   folded[f,k] = w[f, k] * scale[f]        shift[f] = (b[f] - mean[f]) * scale[f] + beta[f]
//
// shapes   w, folded (F, K); b (F) or null; gamma, beta, mean, variance, shift (F)
// bytes    w once each way
// geometry any grid; a thread takes one filter
#include "dialect.cuh"

KERNEL fold_norm(const T *__restrict__ w, const T *__restrict__ b, const T *__restrict__ gamma,
                 const T *__restrict__ beta, const T *__restrict__ mean,
                 const T *__restrict__ variance, T *__restrict__ folded, T *__restrict__ shift,
                 int F, int K, double eps) {
    GRID_STRIDE(f, F) {
        const acc_t scale = acc_t(gamma[f]) / sqrt(acc_t(variance[f]) + acc_t(eps));
        const acc_t bias = b ? acc_t(b[f]) : acc_t(0);
        shift[f] = T((bias - acc_t(mean[f])) * scale + acc_t(beta[f]));
        for (int k = 0; k < K; ++k) folded[f * K + k] = T(acc_t(w[f * K + k]) * scale);
    }
}
