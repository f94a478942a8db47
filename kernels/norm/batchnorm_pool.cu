// Batch normalisation, max-pooling and an optional ReLU in one, and its gradient.
//
//   y  = relu(max over a window of gamma * xhat + beta),  xhat = (x - mean) * inv_std
//   g  = dy at the window's maximum, 0 at its other pixels and wherever the ReLU clipped y
//   dx = gamma * inv_std * (g - mean(g) - xhat * mean(g * xhat))
//   dgamma = sum(g * xhat), dbeta = sum(g)
//
// The normalised image is never written, nor is g. mean and inv_std are those of batchnorm.cu.
//
// shapes   x, dx (N, H, W, C); y, dy, argmax (N, OH, OW, C), argmax counts a window's pixels row by
//          row; the rest (C); partials (chunks, C). Windows have ROWS x COLUMNS pixels, touch and
//          do not overlap; pixels that fill none, at the bottom and right, get a gradient from the
//          statistics alone
// bytes    forward reads x and writes y and argmax; backward reads x, y, dy and argmax twice and
//          writes dx
// geometry sums: a block a chunk of windows, its threads share the channels; the rest: any grid, a
//          thread a (window, channel), on cpu a vector of channels
#include "common/channels.cuh"
#include "pooling/maximum.cuh"

// The pixels of a window; the runtime passes them, editors get these.
#ifndef ROWS
#define ROWS 2
#define COLUMNS 2
#endif

using lanes_t = Simd<acc_t>::type;
using index_t = Simd<acc_t>::index;
constexpr int LANES = Simd<acc_t>::LANES;

// A window and its first pixel, by the window's place among those of all images.
__device__ inline int64 window_at(const Window &g, Place at) {
    return (at.n * g.OH + at.row) * g.OW + at.column;
}
__device__ inline int64 pixel_at(const Window &g, Place at) {
    return (at.n * g.H + at.row * ROWS) * g.W + at.column * COLUMNS;
}

template <typename E> __device__ inline lanes_t take(const E *from, int count) {
    return lanes_t(load_first(from, count));
}

// The gradient of a window's maximum.
__device__ inline lanes_t masked(const T *dy, const T *y, int64 i, int count, int relu) {
    const lanes_t value = take(dy + i, count);
    return relu ? (take(y + i, count) <= 0 ? lanes_t{} : value) : value;
}

KERNEL batch_norm_pool_forward(const T *__restrict__ x, const T *__restrict__ gamma,
                               const T *__restrict__ beta, const acc_t *__restrict__ mean,
                               const acc_t *__restrict__ inv_std, T *__restrict__ y,
                               uint8 *__restrict__ argmax, Window g, int64 windows, int C,
                               int relu) {
    const int ahead = row_ahead((int64)ROWS * g.W * C);
    for_places_and_vectors(windows, g.OH, g.OW, C, [=](int64 window, Place at, int c) {
        const int count = C - c;
        const lanes_t centre = take(mean + c, count), shift = take(beta + c, count);
        const lanes_t scale = take(gamma + c, count) * take(inv_std + c, count);
        const T *source = x + pixel_at(g, at) * C + c;
        const auto value = [=](int tap) {
            const T *p = source + ((int64)(tap / COLUMNS) * g.W + tap % COLUMNS) * C;
            fetch_ahead(p, 1, ahead);
            // Centred before scaling: folding the mean into beta would cancel for large means.
            return as_stored((take(p, count) - centre) * scale + shift);
        };
        Maximum maximum(value(0));
        UNROLL for (int tap = 1; tap < ROWS * COLUMNS; ++tap) maximum.meet(value(tap), tap);
        maximum.store(y + window * C + c, argmax + window * C + c, count, relu);
    });
}

// Partial sums of g and g * xhat over each chunk of windows.
KERNEL batch_norm_pool_sums(const T *__restrict__ dy, const T *__restrict__ x,
                            const T *__restrict__ y, const uint8 *__restrict__ argmax,
                            const acc_t *__restrict__ mean, const acc_t *__restrict__ inv_std,
                            acc_t *__restrict__ sums, acc_t *__restrict__ products, Window g,
                            int64 windows, int C, int relu, int windows_per_chunk) {
    const int64 begin = (int64)blockIdx.x * windows_per_chunk;
    const int64 end = smaller(begin + windows_per_chunk, windows);
    for_registers(C, [&](auto at) {
        constexpr int V = decltype(at)::REGISTERS;
        lanes_t sum[V] = {}, product[V] = {};
        Place where = place(begin, g.OH, g.OW);
        for (int64 window = begin; window < end; ++window, where.advance(g.OH, g.OW)) {
            const T *source = x + pixel_at(g, where) * C + at.first;
            const int64 i = window * C + at.first;
            UNROLL for (int v = 0; v < V; ++v) {
                const index_t index = at.load_whole(argmax + i, v);
                lanes_t maximum = {};
                UNROLL for (int tap = 0; tap < ROWS * COLUMNS; ++tap) {
                    const T *p = source + ((int64)(tap / COLUMNS) * g.W + tap % COLUMNS) * C;
                    at.fetch(p, v);
                    maximum = index == tap ? at.load(p, v) : maximum;
                }
                at.fetch(dy + i, v);
                const lanes_t gradient = masked(dy, y, i + v * LANES, at.count(v), relu);
                sum[v] += gradient;
                product[v] += gradient * (maximum - at.load(mean + at.first, v));
            }
        }
        UNROLL for (int v = 0; v < V; ++v) {
            const int64 own = (int64)blockIdx.x * C + at.first;
            at.store(sums + own, v, sum[v]);
            at.store(products + own, v, product[v] * at.load(inv_std + at.first, v));
        }
    });
}

// dx from the summed dbeta and dgamma. The windows at the bottom and right may be cut off.
KERNEL batch_norm_pool_input_gradient(const T *__restrict__ dy, const T *__restrict__ x,
                                      const T *__restrict__ y, const uint8 *__restrict__ argmax,
                                      const T *__restrict__ gamma, const acc_t *__restrict__ mean,
                                      const acc_t *__restrict__ inv_std,
                                      const acc_t *__restrict__ sum,
                                      const acc_t *__restrict__ product, T *__restrict__ dx,
                                      Window g, int64 images, int C, int relu) {
    const int rows = ceil_div(g.H, ROWS), columns = ceil_div(g.W, COLUMNS);
    const acc_t share = acc_t(1) / (acc_t(images) * acc_t(g.H) * acc_t(g.W));
    const bool past = past_caches<T>(images * g.H * g.W, C);
    for_places_and_vectors(images * rows * columns, rows, columns, C, [=](int64, Place at, int c) {
        const int count = C - c;
        const bool whole = at.row < g.OH && at.column < g.OW;
        const int64 window = window_at(g, at) * C + c;
        const int used = whole ? count : 0;
        const index_t index = load_first_whole<acc_t>(argmax + window, used);
        const lanes_t gradient = masked(dy, y, window, used, relu);
        const lanes_t centre = take(mean + c, count), deviation = take(inv_std + c, count);
        const lanes_t scale = take(gamma + c, count) * deviation;
        const lanes_t base = take(sum + c, count) * share;
        const lanes_t slope = take(product + c, count) * deviation * share;
        const int64 first = pixel_at(g, at) * C + c;
        const int bottom = g.H - at.row * ROWS, right = g.W - at.column * COLUMNS;
        UNROLL for (int kh = 0; kh < ROWS; ++kh) UNROLL for (int kw = 0; kw < COLUMNS; ++kw) {
            if (kh >= bottom || kw >= right) continue;
            const int64 i = first + ((int64)kh * g.W + kw) * C;
            fetch_ahead(x + i);
            const lanes_t own = index == kh * COLUMNS + kw ? gradient : lanes_t{};
            const lanes_t centred = own - base - (take(x + i, count) - centre) * slope;
            write_first(dx + i, scale * centred, count, past);
        }
    });
}
