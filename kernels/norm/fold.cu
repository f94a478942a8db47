// A convolution's filters with the batch-norm that follows it folded in, for inference, and which
// are others than last time: what was made of the same ones can stay.
//
//   scale[f]    = gamma[f] / sqrt(variance[f] + eps)
//   folded[f,k] = w[f, k] * scale[f]        shift[f] = (b[f] - mean[f]) * scale[f] + beta[f]
//
// shapes   w, folded (F, K); b (F) or null; gamma, beta, mean, variance (F), null without a norm;
//          shift (F); changed (F), below zero while there is nothing in folded
// bytes    w and folded once; folded again where it changes
// geometry any grid; a thread takes one filter
#include "dialect/dialect.cuh"

template <int BYTES> struct Bits { using type = uint32; };
template <> struct Bits<2> { using type = uint16; };
template <> struct Bits<8> { using type = uint64; };
using bits_t = Bits<sizeof(T)>::type;

// Numbers would not do: NaN is not itself, and -0 is 0.
__device__ __forceinline__ bits_t bits(T value) {
    bits_t same;
    memcpy(&same, &value, sizeof same);
    return same;
}

KERNEL fold_norm(const T *__restrict__ w, const T *__restrict__ b, const T *__restrict__ gamma,
                 const T *__restrict__ beta, const T *__restrict__ mean,
                 const T *__restrict__ variance, T *__restrict__ folded, T *__restrict__ shift,
                 int *__restrict__ changed, int F, int K, double eps) {
    GRID_STRIDE(f, F) {
        const T *from = w + f * K;
        T *to = folded + f * K;
        acc_t scale = 1, offset = b ? acc_t(b[f]) : acc_t(0);
        if (gamma) {
            scale = acc_t(gamma[f]) / sqrt(acc_t(variance[f]) + acc_t(eps));
            offset = (offset - acc_t(mean[f])) * scale + acc_t(beta[f]);
        }
        shift[f] = T(offset);
        bits_t difference = changed[f] < 0;
        int k = 0;  // below K: of empty filters there are no blocks
        do difference |= bits(T(acc_t(from[k]) * scale)) ^ bits(to[k]);
        while (++k < K);
        changed[f] = difference != 0;
        if (difference != 0)
            for (k = 0; k < K; ++k) to[k] = T(acc_t(from[k]) * scale);
    }
}
