// d (16 x 8) = a (16 x 16) b (16 x 8) by one warp, as a test of the fragments of mma.cuh.
#include "mma.cuh"


// Two neighbours of a matrix of 16-bit elements, the lower index in the lower half.
__device__ inline uint32 pair(const uint16 *first, int step) {
    return uint32(first[0]) | uint32(first[step]) << 16;
}

template <typename E>
__device__ inline void product(const uint16 *a, const uint16 *b, float *d) {
    const int g = threadIdx.x / 4, t = threadIdx.x % 4;
    const uint32 left[4] = {pair(a + g * 16 + 2 * t, 1), pair(a + (g + 8) * 16 + 2 * t, 1),
                            pair(a + g * 16 + 2 * t + 8, 1), pair(a + (g + 8) * 16 + 2 * t + 8, 1)};
    const uint32 right[2] = {pair(b + 2 * t * 8 + g, 8), pair(b + (2 * t + 8) * 8 + g, 8)};
    float sum[4] = {};
    mma_m16n8k16<E>(sum, left, right);
    for (int i = 0; i < 4; ++i) d[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = sum[i];
}

KERNEL mma_fp16(const uint16 *__restrict__ a, const uint16 *__restrict__ b, float *__restrict__ d) {
    product<Fp16>(a, b, d);
}
KERNEL mma_bf16(const uint16 *__restrict__ a, const uint16 *__restrict__ b, float *__restrict__ d) {
    product<Bf16>(a, b, d);
}
