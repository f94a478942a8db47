// Folds the batch-norm that follows a convolution into its filters, for inference, and tells which
// filters changed, so that values derived from the others can be reused.
//
//   scale[f]    = gamma[f] / sqrt(variance[f] + eps)
//   folded[f,k] = w[f, k] * scale[f]        shift[f] = (b[f] - mean[f]) * scale[f] + beta[f]
//
// shapes   w, folded (F, K); b (F) or null; gamma, beta, mean, variance (F), null without a norm;
//          shift (F); changed (F), negative before the first launch
// bytes    w and folded are read once; changed filters are written once
// geometry a block takes whole filters, one after the other; its threads share the weights
#include "dialect/dialect.cuh"

template <int BYTES> struct Bits { using type = uint32; };
template <> struct Bits<2> { using type = uint16; };
template <> struct Bits<8> { using type = uint64; };
using bits_t = Bits<sizeof(T)>::type;

// Compares bits, not numbers: NaN is not equal to itself, and -0 is equal to 0.
__device__ __forceinline__ bits_t bits(T value) {
    bits_t same;
    memcpy(&same, &value, sizeof same);
    return same;
}

KERNEL fold_norm(const T *__restrict__ w, const T *__restrict__ b, const T *__restrict__ gamma,
                 const T *__restrict__ beta, const T *__restrict__ mean,
                 const T *__restrict__ variance, T *__restrict__ folded, T *__restrict__ shift,
                 int *__restrict__ changed, int F, int K, double eps) {
    BLOCK_ROWS(f, F) {
        const T *from = w + f * K;
        T *to = folded + f * K;
        acc_t scale = 1, offset = b ? acc_t(b[f]) : acc_t(0);
        if (gamma) {
            scale = acc_t(gamma[f]) / sqrt(acc_t(variance[f]) + acc_t(eps));
            offset = (offset - acc_t(mean[f])) * scale + acc_t(beta[f]);
        }
        bits_t difference = changed[f] < 0;
        BLOCK_STRIDE(k, K) difference |= bits(T(acc_t(from[k]) * scale)) ^ bits(to[k]);
        const int differs = block_reduce(int(difference != 0), Or());
        if (threadIdx.x == 0) shift[f] = T(offset), changed[f] = differs;
        if (differs)
            BLOCK_STRIDE(k, K) to[k] = T(acc_t(from[k]) * scale);
    }
}
