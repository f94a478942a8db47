// Convolution of images of one channel with bias, max-pooling and ReLU, at stride 1, on tensor
// cores, in 16 bits. one_channel_pool.cu has the maths, one_channel_mma.cuh the product.
//
// Rows g and g + 8 of a product are pixels of the same pooling window, so that a lane gets all sums
// of a window.
//
// shapes   x (N, H, W), w (F, KH, KW), b (F) or null, y and argmax (N, PH, PW, F)
// bytes    x once for each FILTERS filters; y and argmax once
// shared   the image (pixel_pairs.cuh) and the filters
// geometry grid (blocks, F / FILTERS): a block has `share` images, one after the other, of which a
//          warp takes eight pooling windows at a time
#include "conv/one_channel_mma.cuh"
#include "pooling/maximum.cuh"

// Pixels of a pooling window; one_channel_mma.py passes them.
#ifndef POOL_H
#define POOL_H 2
#define POOL_W 2
#endif
constexpr int PIXELS = POOL_H * POOL_W;
static_assert(PIXELS % 2 == 0, "rows g and g + 8 are of one window");

KERNEL __launch_bounds__(MOST_THREADS, 2)
one_channel_pool_mma_forward(const T *__restrict__ x, const T *__restrict__ w,
                             const T *__restrict__ b, T *__restrict__ y, uint8 *__restrict__ argmax,
                             Window g, int images, int share, int PH, int PW, int F) {
    DYNAMIC_SHARED(uint32, memory);
    const PixelPairs pixels(memory, g);
    const PairedFilters filters(w, b, blockIdx.y * FILTERS, F, pixels);
    const int windows = PH * PW, warps = blockDim.x / WARP, group = threadIdx.x % WARP / 4;
    const int end = smaller(int(blockIdx.x + 1) * share, images);
    for (int n = blockIdx.x * share; n < end; ++n) {
        pixels.fill(x + (int64)n * g.H * g.W, g);
        NO_UNROLL(int begin = threadIdx.x / WARP * 8; begin < windows; begin += warps * 8) {
            const int window = smaller(begin + group, windows - 1);
            const int top = window / PW * POOL_H, left = window % PW * POOL_W;
            float sums[PIXELS / 2][GROUPS][4] = {};
            UNROLL(int i = 0; i < PIXELS / 2; ++i) {
                int at[2];
                UNROLL(int half = 0; half < 2; ++half) {
                    const int p = 2 * i + half;
                    at[half] = pixels.at(top + p / POOL_W, left + p % POOL_W);
                }
                filters.multiply(sums[i], pixels, at);
            }
            acc_t best[OF_LANE];
            int index[OF_LANE];
            UNROLL(int c = 0; c < OF_LANE; ++c) {
                const auto value = [&](int p) INLINE {
                    return as_stored(sums[p / 2][c / 2][p % 2 * 2 + c % 2] + filters.shift[c]);
                };
                Maximum maximum(value(0));
                UNROLL(int p = 1; p < PIXELS; ++p) maximum.meet(value(p), p);
                best[c] = maximum.clipped(true), index[c] = maximum.index;
            }
            const int64 out = ((int64)n * windows + window) * F;
            if (begin + group < windows) {
                filters.store(y + out, best);
                filters.store(argmax + out, index);
            }
        }
    }
}
