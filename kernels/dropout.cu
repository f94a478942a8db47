// Inverted dropout and its gradient.
//
//   y = x / (1 - p) where the mask is 1, else 0;  mask[i] = [u_i >= p], u_i uniform in [0, 1)
//
// Element i takes word i % 4 of Philox block i / 4: a function of seed, offset and i alone. The
// offset grows by counter[0], unless that is null.
//
// shapes   x, y, mask, dy, dx: any, equal; mask uint8
// bytes    x once, y and mask once
// geometry any grid; a thread takes four elements, one Philox block, at a time
#include "random.cuh"

KERNEL dropout_forward(const T *__restrict__ x, T *__restrict__ y, uint8 *__restrict__ mask,
                       int64 count, double p, uint64 seed, uint64 offset,
                       const int64 *__restrict__ counter) {
    const acc_t scale = acc_t(1 / (1 - p));
    if (counter) offset += uint64(counter[0]);
    GRID_STRIDE(block, (count + 3) / 4) {
        const Random4 random = philox(seed, block, offset);
        const int64 first = block * 4, left = count - first;
        for (int j = 0; j < smaller(left, (int64)4); ++j) {
            const bool kept = random.uniform(j) >= float(p);
            mask[first + j] = kept;
            y[first + j] = kept ? T(acc_t(x[first + j]) * scale) : T(0);
        }
    }
}

KERNEL dropout_backward(const T *__restrict__ dy, const uint8 *__restrict__ mask,
                        T *__restrict__ dx, int64 count, double p) {
    const acc_t scale = acc_t(1 / (1 - p));
    GRID_STRIDE(i, count) dx[i] = mask[i] ? T(acc_t(dy[i]) * scale) : T(0);
}
