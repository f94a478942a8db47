// The epilogues of convolutions and dense layers on `cpu`: registers of LANES columns.
#pragma once

#include "dialect/lanes.cuh"

// BiasRelu's Taker, which receives each register of columns from n on: this one ignores it.
struct Nothing {
    __device__ void operator()(int, const lanes_t (&)[TM], int) const {}
};

// y[m, n] = value + bias[n], clipped below at zero when relu is set; bias may be null.
template <class Taker = Nothing> struct BiasRelu {
    T *y;
    const T *bias;
    int64 stride;
    int relu;
    bool past;  // past_caches of y
    Taker take;

    template <int V>
    __device__ __forceinline__ void store(int m, int n, const lanes_t (&tile)[TM][V], int rows,
                                          int columns) const {
        const bool past = this->past;
        UNROLL(int v = 0; v < V; ++v) {
            const int count = columns - v * LANES;
            const lanes_t shift =
                bias ? lanes_t(load_first(bias + n + v * LANES, count)) : lanes_t{};
            T *to = y + m * stride + n + v * LANES;
            const bool whole = LANES > 1 && rows == TM && count >= LANES;  // most are
            lanes_t value[TM];
            UNROLL(int i = 0; i < TM; ++i, to += stride) {
                value[i] = tile[i][v] + shift;
                if (relu) value[i] = value[i] < 0 ? lanes_t{} : value[i];
                if (whole && past)
                    write_first(to, value[i], LANES, past);
                else if (whole)
                    store_first(to, value[i], LANES);
                else if (i < rows)
                    store_first(to, value[i], count);
            }
            take(n + v * LANES, value, rows);
        }
    }
};

// Stores an input's gradient. Here the gradient of a ReLU is a separate launch, which takes no
// longer.
struct PastRelu {
    T *dx;
    const T *y;
    const uint8 *argmax;  // null, as y is
    Pooling pooling;

    template <int V>
    __device__ __forceinline__ void store(const Place &, int, int64 to, const lanes_t (&value)[V],
                                          int columns) const {
        store_row(dx + to, value, columns);
    }
};

// Rows of an input's gradient, `stride` elements apart.
struct InputGradient {
    PastRelu past;
    int64 stride;

    template <int V>
    __device__ __forceinline__ void store(int m, int n, const lanes_t (&tile)[TM][V], int rows,
                                          int columns) const {
        UNROLL(int i = 0; i < TM; ++i)
            if (i < rows) past.store({}, 0, (m + i) * stride + n, tile[i], columns);
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
    __device__ void store(int m, int n, const lanes_t (&tile)[TM][V], int rows, int columns) const {
        if (taps == 4)
            pool<4>(m / 4, n, tile, rows / 4, columns);
        else
            pool<2>(m / 2, n, tile, rows / 2, columns);
    }

    template <int TAPS, int V>
    __device__ __forceinline__ void pool(int window, int n, const lanes_t (&tile)[TM][V],
                                         int windows, int columns) const {
        UNROLL(int v = 0; v < V; ++v) {
            const int count = columns - v * LANES;
            const lanes_t shift =
                bias ? lanes_t(load_first(bias + n + v * LANES, count)) : lanes_t{};
            UNROLL(int i = 0; i < TM / TAPS; ++i) {
                if (i > 0 && i >= windows) break;  // a tile has at least one
                Maximum maximum(tile[i * TAPS][v] + shift);
                UNROLL(int tap = 1; tap < TAPS; ++tap)
                    maximum.meet(tile[i * TAPS + tap][v] + shift, tap);
                const int64 out = (int64)(window + i) * stride + n + v * LANES;
                maximum.store(y + out, argmax + out, count, true);
            }
        }
    }
};
