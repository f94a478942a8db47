// The epilogues of convolutions and dense layers for blocks of many threads.
#pragma once

// BiasRelu's Taker receives its values on cpu; here it does nothing, as no thread has a whole
// channel.
struct Nothing {};

// y[m, n] = value + bias[n], clipped below at zero when relu is set; bias may be null.
template <class Taker = Nothing> struct BiasRelu {
    T *y;
    const T *bias;
    int64 stride;
    int relu;
    bool past;  // this and `take` are used on cpu only
    Taker take;

    template <int V>
    __device__ void store(int m, int n, const acc_t (&tile)[TM][V], int rows, int columns) const {
        acc_t shift[V];
        UNROLL(int v = 0; v < V; ++v) shift[v] = bias && v < columns ? acc_t(bias[n + v]) : 0;
        UNROLL(int i = 0; i < TM; ++i) {
            acc_t value[V];
            UNROLL(int v = 0; v < V; ++v) {
                value[v] = tile[i][v] + shift[v];
                if (relu && value[v] < 0) value[v] = 0;
            }
            if (i < rows) store_row(y + (m + i) * stride + n, value, columns);
        }
    }
};

// What an input's gradient passes: 0 nothing, 1 the ReLU that the input is the result of, 2 that
// and a max-pool. Each is much code, so it is compiled only where it is launched.
#ifndef PAST
#define PAST 2
#endif

// Stores an input's gradient; where it passes a ReLU with the result y, as dx[to] = value where
// y[to] > 0, else 0; and where it passes a pool, at the pixels that argmax tells.
struct PastRelu {
    T *dx;
    const T *y;
    const uint8 *argmax;
    Pooling pooling;

    // `to` is where the values lie in y; at and f tell its pixel and channel.
    template <int V>
    __device__ void store(const Place &at, int f, int64 to, const acc_t (&value)[V],
                          int columns) const {
        if constexpr (PAST == 0) {
            store_row(dx + to, value, columns);
        } else {
            acc_t output[V], gradient[V];
            load_row(output, y + to, columns);
            UNROLL(int v = 0; v < V; ++v) gradient[v] = output[v] <= 0 ? 0 : value[v];
            if constexpr (PAST == 1)
                store_row(dx + to, gradient, columns);
            else {
                int tap[V];
                load_row(tap, argmax + to, columns);
                unpool(at, f, gradient, tap, columns);
            }
        }
    }

    // A group of channels may begin and end at any of them; columns may go on at the next pixel.
    template <int V>
    __device__ __forceinline__ void unpool(Place at, int f, const acc_t (&gradient)[V],
                                           const int (&tap)[V], int columns) const {
        if (pooling.F % V == 0 && f % V == 0 && columns >= V)
            return unpool_window(dx, pooling, at, f, gradient, tap);
        if constexpr (V > 4) {
            unpool(at, f, halves(gradient)[0], halves(tap)[0], columns);
            if (columns <= V / 2) return;
            f += V / 2;
            for (; f >= pooling.F; f -= pooling.F) at.advance(pooling.PH, pooling.PW);
            unpool(at, f, halves(gradient)[1], halves(tap)[1], columns - V / 2);
        } else {
            NO_UNROLL(int v = 0; v < columns && v < V; ++v) {  // few layers have such F
                acc_t one[1] = {gradient[0]};
                int tap_of_one[1] = {tap[0]};
                UNROLL(int u = 1; u < V; ++u) {
                    one[0] = u == v ? gradient[u] : one[0];
                    tap_of_one[0] = u == v ? tap[u] : tap_of_one[0];
                }
                unpool_window(dx, pooling, at, f, one, tap_of_one);
                if (++f == pooling.F) f = 0, at.advance(pooling.PH, pooling.PW);
            }
        }
    }
};

// Rows of an input's gradient, `stride` elements apart: whole pixels of a pool's result, such as an
// image's.
struct InputGradient {
    PastRelu past;
    int64 stride;

    template <int V>
    __device__ __forceinline__ void store(int m, int n, const acc_t (&tile)[TM][V], int rows,
                                          int columns) const {
        const auto each = [&](const auto &pixel, int f) {
            UNROLL(int i = 0; i < TM; ++i)
                if (i < rows) past.store(pixel(m + i), f, (m + i) * stride + n, tile[i], columns);
        };
        if constexpr (PAST < 2) {
            each([](int) { return Place(); }, 0);
        } else {
            const Pooling &g = past.pooling;
            const int pixels = int(stride) / g.F, first = n / g.F;  // of a row; the first of these
            const PlacesByNumber places(g.PH, g.PW);
            each([&](int row) { return places.at(row * pixels + first); }, n - first * g.F);
        }
    }
};

// y[window, n] = the maximum over the window's pixels of value + bias[n], clipped below at zero;
// argmax is its pixel in the window. The rows m are pixels in the order of their windows.
struct BiasPoolRelu {
    T *y;
    uint8 *argmax;
    const T *bias;
    int64 stride;
    int taps;  // pixels of a window, 2 or 4

    template <int V>
    __device__ void store(int m, int n, const acc_t (&tile)[TM][V], int rows, int columns) const {
        if (taps == 4)
            pool<4>(m / 4, n, tile, rows / 4, columns);
        else
            pool<2>(m / 2, n, tile, rows / 2, columns);
    }

    template <int TAPS, int V>
    __device__ __forceinline__ void pool(int window, int n, const acc_t (&tile)[TM][V], int windows,
                                         int columns) const {
        acc_t shift[V];
        UNROLL(int v = 0; v < V; ++v) shift[v] = bias && v < columns ? acc_t(bias[n + v]) : 0;
        UNROLL(int i = 0; i < TM / TAPS; ++i) {
            acc_t best[V];
            int index[V];
            UNROLL(int v = 0; v < V; ++v) {
                Maximum maximum(as_stored(tile[i * TAPS][v] + shift[v]));
                UNROLL(int tap = 1; tap < TAPS; ++tap)
                    maximum.meet(as_stored(tile[i * TAPS + tap][v] + shift[v]), tap);
                best[v] = maximum.best < 0 ? 0 : maximum.best;
                index[v] = maximum.index;
            }
            if (i >= windows) break;
            const int64 out = (int64)(window + i) * stride + n;
            store_row(y + out, best, columns);
            store_row(argmax + out, index, columns);
        }
    }
};
