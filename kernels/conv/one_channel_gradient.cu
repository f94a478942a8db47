// The gradients of filters and biases of a convolution of images of one channel, at stride 1, on
// cuda.
//
//   dw[f, kh, kw] = sum over n, h, w of dy[n, h, w, f] * x[n, h + kh - PH, w + kw - PW]
//   db[f]         = sum over n, h, w of dy[n, h, w, f]
//
// As a product, as in conv2d.cu, it has 26 rows at most, and im2col copies x to shared memory once
// for each tap, 4 bytes at a time. Here a thread keeps the pixels under a filter in registers while
// it goes along a row of dy: with each step they need a column of KH new ones, which serve KH * KW
// sums of each of its filters.
//
// shapes   x (N, H, W), dy (N, OH, OW, F); partial sums (blocks, F * (KH * KW + bias)), those of
//          biases last
// bytes    dy once, x once for each filter of a thread, from cache
// geometry grid (blocks, F / filters of a block); a block has `teams` teams of a thread for every
//          FILTERS filters; each team takes every `teams`-th of the block's `share` rows of dy
#include "conv/one_channel.cuh"

// Filters of a thread; one_channel.py passes it.
#ifndef FILTERS
#define FILTERS 2
#endif

constexpr int TAPS = TAPS_H * TAPS_W, MOST_THREADS = 96;  // one_channel.py
// Blocks that a multiprocessor must hold: up to 136 registers per thread in float.
constexpr int BLOCKS = sizeof(acc_t) > 4 ? 1 : 5;

KERNEL __launch_bounds__(MOST_THREADS, BLOCKS)
one_channel_filter_gradient(const T *__restrict__ dy, const T *__restrict__ x,
                            acc_t *__restrict__ partial, Window g, int rows, int F, int bias,
                            int teams, int share) {
    const int members = blockDim.x / teams, team = threadIdx.x / members;
    const int first = (blockIdx.y * members + threadIdx.x % members) * FILTERS;
    acc_t sums[FILTERS][TAPS] = {}, biases[FILTERS] = {};
    const int begin = blockIdx.x * share, end = smaller(begin + share, rows);
    for (int row = begin + team; first < F && row < end; row += teams) {
        const int n = row / g.OH, top = row - n * g.OH - g.PH;
        const T *pixel = x + ((int64)n * g.H + top) * g.W - g.PW;  // under the first tap
        const T *gradient = dy + (int64)row * g.OW * F + first;
        // Column w of the pixels is in column w % TAPS_W of the window.
        acc_t window[TAPS_H][TAPS_W];
        const auto load = [&](int w, int to) {
            UNROLL(int kh = 0; kh < TAPS_H; ++kh) {
                const bool inside =
                    unsigned(w - g.PW) < unsigned(g.W) && unsigned(top + kh) < unsigned(g.H);
                window[kh][to] = !PADDED || inside ? acc_t(pixel[kh * g.W + w]) : acc_t(0);
            }
        };
        UNROLL(int w = 0; w < TAPS_W - 1; ++w) load(w, w);
        for (int w0 = 0; w0 < g.OW; w0 += TAPS_W)
            UNROLL(int i = 0; i < TAPS_W; ++i) {
                const int w = w0 + i;
                if (w >= g.OW) break;
                load(w + TAPS_W - 1, (i + TAPS_W - 1) % TAPS_W);
                acc_t value[FILTERS];
                load_vector(value, gradient + (int64)w * F);
                UNROLL(int f = 0; f < FILTERS; ++f) {
                    biases[f] += value[f];
                    UNROLL(int tap = 0; tap < TAPS; ++tap)
                        sums[f][tap] += value[f] * window[tap / TAPS_W][(i + tap) % TAPS_W];
                }
            }
    }
    // The teams' sums, added up in order. Neighbouring threads read them from neighbouring banks,
    // across the end of a tap's members, too.
    __shared__ acc_t of_threads[(TAPS + 1) * (MOST_THREADS + 31)];
    const int pitch = blockDim.x + ((members - int(blockDim.x)) & 31);  // members, mod 32
    partial += (int64)blockIdx.x * F * (TAPS + bias);
    UNROLL(int f = 0; f < FILTERS; ++f) {
        UNROLL(int tap = 0; tap < TAPS; ++tap) of_threads[tap * pitch + threadIdx.x] = sums[f][tap];
        of_threads[TAPS * pitch + threadIdx.x] = biases[f];
        __syncthreads();
        BLOCK_STRIDE(i, members * (TAPS + bias)) {
            const int tap = i / members, member = i % members;
            const int filter = (blockIdx.y * members + member) * FILTERS + f;
            acc_t sum = 0;
            for (int t = 0; t < teams; ++t) sum += of_threads[tap * pitch + t * members + member];
            if (filter < F)
                partial[tap < TAPS ? (int64)filter * TAPS + tap : (int64)F * TAPS + filter] = sum;
        }
        __syncthreads();
    }
}
