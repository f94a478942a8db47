// Convolution of images of one channel with bias, max-pooling and ReLU, at stride 1, on cuda.
//
//   y[n, ph, pw, f] = max(0, b[f] + max over the pixels of a pooling window of
//                            sum over kh, kw of x[n, h, w] * w[f, kh, kw])
//
// As a product, as in conv2d.cu, such a convolution has 25 columns at most, each copied to shared
// memory by itself, 4 bytes at a time. Here a thread loads the pixels that a pooling window's taps
// cover into registers, once for all of its filters.
//
// shapes   x (N, H, W), w (F, KH, KW), b (F) or null, y and argmax (N, PH, PW, F)
// bytes    x once for each FILTERS filters, from cache; y and argmax once
// geometry grid (windows / blockDim.x, F / FILTERS): a thread has one window and FILTERS filters
#include "conv/one_channel.cuh"
#include "pooling/maximum.cuh"

// Pixels of a pooling window; one_channel.py passes them.
#ifndef POOL_H
#define POOL_H 2
#define POOL_W 2
#endif

constexpr int FILTERS = 8;                                         // one_channel.py
constexpr int TAPS = TAPS_H * TAPS_W, PITCH = (TAPS + 3) / 4 * 4;  // filters begin at 16 bytes

KERNEL one_channel_pool_forward(const T *__restrict__ x, const T *__restrict__ w,
                                const T *__restrict__ b, T *__restrict__ y,
                                uint8 *__restrict__ argmax, Window g, int windows, int PH, int PW,
                                int F) {
    __shared__ __align__(16) acc_t filters[FILTERS][PITCH];
    __shared__ acc_t biases[FILTERS];
    const int first = blockIdx.y * FILTERS, used = smaller(F - first, FILTERS);
    BLOCK_STRIDE(i, FILTERS * TAPS)
        filters[i / TAPS][i % TAPS] = i < used * TAPS ? acc_t(w[first * TAPS + i]) : acc_t(0);
    BLOCK_STRIDE(f, FILTERS) biases[f] = b && f < used ? acc_t(b[first + f]) : acc_t(0);
    __syncthreads();
    const int window = blockIdx.x * blockDim.x + threadIdx.x;
    if (window >= windows) return;

    constexpr int ROWS = POOL_H + TAPS_H - 1, COLUMNS = POOL_W + TAPS_W - 1;
    const Place at = place(window, PH, PW);
    const int top = at.row * POOL_H - g.PH, left = at.column * POOL_W - g.PW;
    const T *image = x + at.n * g.H * g.W;
    acc_t pixels[ROWS][COLUMNS];
    load_pixels(pixels, image, g.H, g.W, top, left);
    acc_t best[FILTERS];
    int index[FILTERS];
    UNROLL(int f = 0; f < FILTERS; ++f) {
        acc_t sums[POOL_H * POOL_W] = {};
        UNROLL(int tap = 0; tap < TAPS; ++tap) {
            const acc_t weight = filters[f][tap];
            UNROLL(int p = 0; p < POOL_H * POOL_W; ++p)
                sums[p] += weight * pixels[p / POOL_W + tap / TAPS_W][p % POOL_W + tap % TAPS_W];
        }
        Maximum maximum(as_stored(sums[0] + biases[f]));
        UNROLL(int p = 1; p < POOL_H * POOL_W; ++p) maximum.meet(as_stored(sums[p] + biases[f]), p);
        best[f] = maximum.clipped(true), index[f] = maximum.index;
    }
    const int64 out = (int64)window * F + first;
    store_row(y + out, best, used);
    store_row(argmax + out, index, used);
}
