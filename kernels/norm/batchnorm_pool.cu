// Fused batch normalisation, max-pooling and optional ReLU, and the gradient.
//
//   y  = relu(max over a window of gamma * xhat + beta),  xhat = (x - mean) * inv_std
//   g  = dy at the window's maximum, 0 at its other pixels and wherever the ReLU clipped y
//   dx = gamma * inv_std * (g - mean(g) - xhat * mean(g * xhat))
//   dgamma = sum(g * xhat), dbeta = sum(g)
//
// The normalised image is never written, nor is g. mean and inv_std are those of batchnorm.cu.
//
// shapes   x, dx (N, H, W, C); y, dy, argmax (N, OH, OW, C), argmax counts a window's pixels row by
//          row; the rest (C); partials (chunks, C). Windows have ROWS x COLUMNS pixels, do not
//          overlap and leave no gaps; pixels in no window, at the bottom and right, get a gradient
//          from the statistics alone
// bytes    forward reads x and writes y and argmax; backward reads x, dy, argmax and, with ReLU, y
//          twice and writes dx
// geometry sums: one block per chunk of windows and group of channels; the rest: any grid, a thread
//          handles windows of one vector of channels, see channels.cuh
#include "norm/batchnorm_gradient.cuh"
#include "pooling/maximum.cuh"

// The size of a window: the runtime passes it, editors see this.
#ifndef ROWS
#define ROWS 2
#define COLUMNS 2
#endif

// The index of a window, and of its first pixel, among those of all images.
__device__ inline int64 window_at(const Window &g, Place at) {
    return (at.n * g.OH + at.row) * g.OW + at.column;
}
__device__ inline int64 pixel_at(const Window &g, Place at) {
    return (at.n * g.H + at.row * ROWS) * g.W + at.column * COLUMNS;
}

KERNEL batch_norm_pool_forward(const T *__restrict__ x, const T *__restrict__ gamma,
                               const T *__restrict__ beta, const acc_t *__restrict__ mean,
                               const acc_t *__restrict__ inv_std, T *__restrict__ y,
                               uint8 *__restrict__ argmax, Window g, int64 windows, int C,
                               int relu) {
    const int ahead = row_ahead((int64)ROWS * g.W * C);
    for_rows(windows, C, [=](auto at, const auto &rows) INLINE {
        constexpr int V = decltype(at)::REGISTERS;
        const int c = at.first;
        const auto centre = at.load(mean + c), shift = at.load(beta + c);
        typename decltype(at)::Values scale = at.load(gamma + c);
        const auto deviation = at.load(inv_std + c);
        UNROLL(int v = 0; v < V; ++v) scale[v] *= deviation[v];
        Walk walk(rows.begin, rows.step, g.OH, g.OW);
        for (int64 window = rows.begin; window < rows.end; window += rows.step, walk.advance()) {
            const T *source = x + pixel_at(g, walk.at) * C + c;
            Maximum maximum[V];
            UNROLL_TAPS(int tap = 0; tap < ROWS * COLUMNS; ++tap) {
                const T *p = source + ((int64)(tap / COLUMNS) * g.W + tap % COLUMNS) * C;
                at.fetch(p, ahead);
                const auto pixel = at.load(p);
                UNROLL(int v = 0; v < V; ++v) {
                    // Centred before scaling: folding the mean into beta would cancel for large
                    // means.
                    const lanes_t value = as_stored((pixel[v] - centre[v]) * scale[v] + shift[v]);
                    if (tap == 0)
                        maximum[v] = Maximum(value);
                    else
                        maximum[v].meet(value, tap);
                }
            }
            const int64 i = window * C + c;
            at.store(y + i, [&](int v) { return maximum[v].clipped(relu); });
            at.store_whole(argmax + i, [&](int v) { return maximum[v].index; });
        }
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
    for_chunk(begin, end, C, [&](auto at, const auto &rows) {
        constexpr int V = decltype(at)::REGISTERS;
        GradientSums<decltype(at)> chunk(at, mean);
        Walk walk(rows.begin, rows.step, g.OH, g.OW);
        for (int64 window = rows.begin; window < rows.end; window += rows.step, walk.advance()) {
            const T *source = x + pixel_at(g, walk.at) * C + at.first;
            const int64 i = window * C + at.first;
            const auto index = at.load_whole(argmax + i);
            typename decltype(at)::Values maximum = {};
            UNROLL_TAPS(int tap = 0; tap < ROWS * COLUMNS; ++tap) {
                const T *p = source + ((int64)(tap / COLUMNS) * g.W + tap % COLUMNS) * C;
                at.fetch(p);
                const auto pixel = at.load(p);
                UNROLL(int v = 0; v < V; ++v) maximum[v] = index[v] == tap ? pixel[v] : maximum[v];
            }
            at.fetch(dy + i);
            chunk.add(masked(at, dy, relu ? y : nullptr, i), maximum);
        }
        chunk.store(rows, inv_std, sums, products, C);
    });
}

// dx from dbeta and dgamma. Windows at the bottom and right may be cut off by the border.
KERNEL batch_norm_pool_input_gradient(const T *__restrict__ dy, const T *__restrict__ x,
                                      const T *__restrict__ y, const uint8 *__restrict__ argmax,
                                      const T *__restrict__ gamma, const acc_t *__restrict__ mean,
                                      const acc_t *__restrict__ inv_std,
                                      const acc_t *__restrict__ sum,
                                      const acc_t *__restrict__ product, T *__restrict__ dx,
                                      Window g, int64 images, int C, int relu) {
    const int down = ceil_div(g.H, ROWS), across = ceil_div(g.W, COLUMNS);
    const acc_t share = acc_t(1) / (acc_t(images) * acc_t(g.H) * acc_t(g.W));
    const bool past = past_caches<T>(images * g.H * g.W, C);
    for_rows(images * down * across, C, [=](auto at, const auto &rows) INLINE {
        using Values = typename decltype(at)::Values;
        constexpr int V = decltype(at)::REGISTERS;
        const int c = at.first;
        const auto centre = at.load(mean + c), deviation = at.load(inv_std + c);
        Values scale = at.load(gamma + c), base = at.load(sum + c), slope = at.load(product + c);
        UNROLL(int v = 0; v < V; ++v) {
            scale[v] *= deviation[v];
            base[v] *= share;
            slope[v] = slope[v] * deviation[v] * share;
        }
        Walk walk(rows.begin, rows.step, down, across);
        for (int64 r = rows.begin; r < rows.end; r += rows.step, walk.advance()) {
            const Place place = walk.at;
            const int64 window = window_at(g, place) * C + c;
            OfChannels<index_t, V> index = {};
            Values gradient = {};
            if (place.row < g.OH && place.column < g.OW) {
                index = at.load_whole(argmax + window);
                gradient = masked(at, dy, relu ? y : nullptr, window);
            }
            const int64 first = pixel_at(g, place) * C + c;
            const int bottom = g.H - place.row * ROWS, right = g.W - place.column * COLUMNS;
            UNROLL_TAPS(int kh = 0; kh < ROWS; ++kh)
                UNROLL_TAPS(int kw = 0; kw < COLUMNS; ++kw) {
                    if (kh >= bottom || kw >= right) continue;
                    const int64 i = first + ((int64)kh * g.W + kw) * C;
                    at.fetch(x + i);
                    const auto pixel = at.load(x + i);
                    at.write(dx + i, past, [&](int v) {
                        const lanes_t own = index[v] == kh * COLUMNS + kw ? gradient[v] : lanes_t{};
                        return scale[v] * (own - base[v] - (pixel[v] - centre[v]) * slope[v]);
                    });
                }
        }
    });
}
