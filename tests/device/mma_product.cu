// d (16 x 8) = a (16 x K) b (K x 8) by one warp, rounded, as a test of the fragments of mma.cuh.
#include "dialect/mma.cuh"

using E = TYPE_PRECISION;

KERNEL mma_product(const float *__restrict__ a, const float *__restrict__ b,
                   float *__restrict__ d) {
    const int g = threadIdx.x / 4, t = threadIdx.x % 4;
    // Element k of an operand's row or column, and the next.
    const auto pair = [](const float *first, int k, int step) {
        return rounded<E>(first[k * step], first[(k + E::PER - 1) * step]);
    };
    uint32 left[4], right[2];
    for (int r = 0; r < 4; ++r)
        left[r] = pair(a + (g + r % 2 * 8) * E::K, (t + r / 2 * 4) * E::PER, 1);
    for (int r = 0; r < 2; ++r) right[r] = pair(b + g, (t + r * 4) * E::PER, 8);
    float sum[4] = {};
    mma<E>(sum, left, right);
    for (int i = 0; i < 4; ++i) d[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = sum[i];
}
