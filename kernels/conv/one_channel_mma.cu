// Convolution of images of one channel with bias and ReLU, at stride 1, on tensor cores, in 16
// bits. one_channel.cu has the maths, one_channel_mma.cuh the product.
//
// shapes   x (N, H, W), w (F, KH, KW), b (F) or null, y (N, OH, OW, F); if not null, the moments of
//          y: CHUNKS chunks of a block's pixels, see norm/moments.cuh
// bytes    x once for each FILTERS filters; y once, and from cache for its moments
// shared   the image (pixel_pairs.cuh) and the filters
// geometry grid (blocks, F / FILTERS): a block has `share` images, one after the other, of which a
//          warp takes 16 pixels at a time
#include "conv/one_channel_mma.cuh"
#include "norm/moments.cuh"

constexpr int CHUNKS = 8;  // one_channel_mma.py

KERNEL __launch_bounds__(MOST_THREADS, 2)
one_channel_mma_forward(const T *__restrict__ x, const T *__restrict__ w, const T *__restrict__ b,
                        T *__restrict__ y, acc_t *__restrict__ means, acc_t *__restrict__ squares,
                        int *__restrict__ counts, Window g, int images, int share, int F,
                        int relu) {
    DYNAMIC_SHARED(uint32, memory);
    const PixelPairs pixels(memory, g);
    const int first = blockIdx.y * FILTERS;
    const PairedFilters filters(w, b, first, F, pixels);
    const int count = g.OH * g.OW, warps = blockDim.x / WARP, group = threadIdx.x % WARP / 4;
    const int begin = blockIdx.x * share, end = smaller(begin + share, images);
    for (int n = begin; n < end; ++n) {
        pixels.fill(x + (int64)n * g.H * g.W, g);
        NO_UNROLL(int from = threadIdx.x / WARP * 16; from < count; from += warps * 16) {
            int pixel[2], at[2];
            UNROLL(int half = 0; half < 2; ++half) {
                pixel[half] = from + half * 8 + group;
                const int inside = smaller(pixel[half], count - 1);
                at[half] = pixels.at(inside / g.OW, inside % g.OW);
            }
            float sums[GROUPS][4] = {};
            filters.multiply(sums, pixels, at);
            UNROLL(int half = 0; half < 2; ++half) {
                acc_t values[OF_LANE];
                UNROLL(int c = 0; c < OF_LANE; ++c) {
                    values[c] = sums[c / 2][half * 2 + c % 2] + filters.shift[c];
                    if (relu && values[c] < 0) values[c] = 0;
                }
                if (pixel[half] < count)
                    filters.store(y + ((int64)n * count + pixel[half]) * F, values);
            }
        }
    }
    const int last = smaller(first + FILTERS, F);
    if (means)
        block_moments(y, F, begin * count, end * count, first, last, CHUNKS, means, squares,
                      counts);
}
