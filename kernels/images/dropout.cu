// Inverted dropout and its gradient.
//
//   y = x / (1 - p) where the mask is 1, else 0;  mask[i] = [u_i >= p], u_i uniform in [0, 1)
//
// Element i takes word i % 4 of Philox block i / 4, which depends on seed, offset and i alone. The
// value counter[0] is added to the offset, unless counter is null.
//
// shapes   x, y, mask, dy, dx: any, equal; mask uint8
// bytes    x once, y and mask once; the gradient: dy, mask and dx once
// geometry any grid; a thread computes LANES Philox blocks of four elements at a time, and one
//          element of the gradient
#include "images/random.cuh"

constexpr int LANES = Simd<float>::LANES, ELEMENTS = 4 * LANES;

// Writes y and mask for the first `left` elements of x, by their words of random bits.
#ifdef __CUDACC__
__device__ inline void drop(const T *x, T *y, uint8 *mask, int left, const uint32 *words, float p,
                            acc_t scale) {
    acc_t value[ELEMENTS];
    int kept[ELEMENTS];
    load_row(value, x, left);
    UNROLL(int i = 0; i < ELEMENTS; ++i) {
        kept[i] = uniform(words[i]) >= p;
        value[i] = kept[i] ? value[i] * scale : acc_t(0);
    }
    store_row(y, value, left);
    store_row(mask, kept, left);
}
#else
static __forceinline__ void drop(const T *x, T *y, uint8 *mask, int left, const uint32 *words,
                                 float p, acc_t scale) {
    FIRST_LANES(i, ELEMENTS, left) {
        const bool kept = uniform(words[i]) >= p;
        mask[i] = kept;
        y[i] = kept ? x[i] * scale : T(0);
    }
}
#endif

KERNEL dropout_forward(const T *__restrict__ x, T *__restrict__ y, uint8 *__restrict__ mask,
                       int64 count, double p, uint64 seed, uint64 offset,
                       const int64 *__restrict__ counter) {
    const acc_t scale = acc_t(1 / (1 - p));
    if (counter) offset += uint64(counter[0]);
    GRID_STRIDE(group, (count + ELEMENTS - 1) / ELEMENTS) {
        uint32 words[ELEMENTS];
        const uint64 block = group * LANES;
        LANE_LOOP(l, LANES) {  // an inner loop would prevent SIMD code
            const Random4 random = philox(seed, block + uint64(l), offset);
            words[l * 4] = random.word[0], words[l * 4 + 1] = random.word[1];
            words[l * 4 + 2] = random.word[2], words[l * 4 + 3] = random.word[3];
        }
        const int64 first = group * ELEMENTS;
        const int left = int(smaller(count - first, (int64)ELEMENTS));
        drop(x + first, y + first, mask + first, left, words, float(p), scale);
    }
}

KERNEL dropout_backward(const T *__restrict__ dy, const uint8 *__restrict__ mask,
                        T *__restrict__ dx, int64 count, double p) {
    const acc_t scale = acc_t(1 / (1 - p));
    GRID_STRIDE(i, count) dx[i] = mask[i] ? T(acc_t(dy[i]) * scale) : T(0);
}
