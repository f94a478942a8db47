// Convolution of images of one channel with bias and ReLU, at stride 1, on cuda. With a pool it is
// one_channel_pool.cu.
//
//   y[n, oh, ow, f] = b[f] + sum over kh, kw of x[n, h, w] * w[f, kh, kw], clipped if relu is set
//
// shapes   x (N, H, W), w (F, KH, KW), b (F) or null, y (N, OH, OW, F); if not null, the moments of
//          y: four chunks of a block's pixels, see norm/moments.cuh
// bytes    x, TAPS_H * (OUTPUTS + TAPS_W - 1) / OUTPUTS times for each FILTERS filters, from cache;
//          y once, and from cache for its moments
// shared   the block's filters, tap by tap
// geometry grid (groups of OUTPUTS pixels of a row, groups of filters): a thread has one group of
//          pixels, `times` times, and FILTERS filters. Neighbouring threads have neighbouring
//          filters: `across` of them have those of the block
#include "conv/one_channel.cuh"
#include "norm/moments.cuh"

constexpr int FILTERS = 4, OUTPUTS = 4, CHUNKS = 4;  // as in one_channel.py

KERNEL one_channel_forward(const T *__restrict__ x, const T *__restrict__ w,
                           const T *__restrict__ b, T *__restrict__ y, acc_t *__restrict__ means,
                           acc_t *__restrict__ squares, int *__restrict__ counts, Window g,
                           int rows, int F, int relu, int across, int times) {
    DYNAMIC_SHARED(acc_t, filters);  // (TAPS_H * TAPS_W, width)
    const int width = across * FILTERS, first = blockIdx.y * width;
    BLOCK_STRIDE(i, TAPS_H * TAPS_W * width) {
        const int tap = i / width, f = first + i - tap * width;
        filters[i] = f < F ? acc_t(w[f * (TAPS_H * TAPS_W) + tap]) : acc_t(0);
    }
    __syncthreads();
    const int per_row = ceil_div(g.OW, OUTPUTS), at_once = blockDim.x / across;
    const auto pixel = [&](int group) {  // the group's first
        const int row = group / per_row;
        return smaller(row, rows) * g.OW + (row < rows ? (group - row * per_row) * OUTPUTS : 0);
    };
    const int own = threadIdx.x % across * FILTERS, f = first + own;
    acc_t shift[FILTERS];
    UNROLL(int i = 0; i < FILTERS; ++i) shift[i] = b && f + i < F ? acc_t(b[f + i]) : acc_t(0);
    const int begin = blockIdx.x * at_once * times, end = begin + at_once * times;
    NO_UNROLL(int group = begin + threadIdx.x / across; group < end; group += at_once) {
        const int row = group / per_row, column = (group - row * per_row) * OUTPUTS;
        if (row >= rows || f >= F) break;
        const int n = row / g.OH, top = row - n * g.OH - g.PH;
        acc_t pixels[TAPS_H][OUTPUTS + TAPS_W - 1];
        load_pixels(pixels, x + (int64)n * g.H * g.W, g.H, g.W, top, column - g.PW);
        acc_t sums[OUTPUTS][FILTERS] = {};
        UNROLL(int kh = 0; kh < TAPS_H; ++kh)
            UNROLL(int kw = 0; kw < TAPS_W; ++kw) {
                acc_t weights[FILTERS];
                load_vector(weights, filters + (kh * TAPS_W + kw) * width + own);
                UNROLL(int o = 0; o < OUTPUTS; ++o)
                    UNROLL(int i = 0; i < FILTERS; ++i)
                        sums[o][i] += weights[i] * pixels[kh][o + kw];
            }
        T *const to = y + ((int64)row * g.OW + column) * F + f;
        UNROLL(int o = 0; o < OUTPUTS; ++o) {
            UNROLL(int i = 0; i < FILTERS; ++i) {
                sums[o][i] += shift[i];
                if (relu && sums[o][i] < 0) sums[o][i] = 0;
            }
            if (column + o < g.OW) store_row(to + o * F, sums[o], F - f);
        }
    }
    const int last = smaller(first + width, F);
    if (means)
        block_moments(y, F, pixel(begin), pixel(end), first, last, CHUNKS, means, squares, counts);
}
