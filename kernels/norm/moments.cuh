// Means and sums of squares about them, taken in one reading and merged in order.
//
// Groups of values about their own mean are merged to chunks, and those to the whole, by the update
// of Chan, Golub and LeVeque (1983), so a mean of 1e4 with a deviation of 1 survives in float32.
// Both count from a pivot, their first value, so that the many updates of a large mean round small
// numbers, and the mean itself once.
//
// shapes   means, squares (chunks, C); counts (chunks), the values of a chunk in each channel
#pragma once

#include "common/channels.cuh"

// Of V neighbouring channels, `mean` from the pivot.
template <int V> struct Moments {
    acc_t pivot[V] = {}, mean[V] = {}, square[V] = {};
    int64 count = 0;

    Moments() = default;
    template <typename E> __device__ explicit Moments(const E *first) {
        LANE_LOOP(v, V) pivot[v] = acc_t(first[v]);
    }

    // Takes up a group of `more` values: its mean from the same pivot, its squares from its mean.
    __device__ __forceinline__ void merge(int64 more, const acc_t *own, const acc_t *spread) {
        if (more == 0) return;  // such a group has no mean
        const acc_t before = acc_t(count), share = acc_t(more) / (before + acc_t(more));
        LANE_LOOP(v, V) {
            const acc_t delta = own[v] - mean[v];
            mean[v] += delta * share;
            square[v] += spread[v] + delta * delta * (before * share);
        }
        count += more;
    }

    // Takes up rows, `stride` elements apart, of which p is the first.
    __device__ __forceinline__ void add_rows(const T *p, int64 stride, int64 rows) {
        constexpr int GROUP = 8;  // rows that stay in the nearest cache until they are read again
        for (int64 r = 0; r < rows; r += GROUP, p += GROUP * stride) {
            const int more = int(smaller(rows - r, (int64)GROUP));
            acc_t own[V] = {}, spread[V] = {};
            for (int i = 0; i < more; ++i) {
                fetch_ahead(p + i * stride, V);
                LANE_LOOP(v, V) own[v] += acc_t(p[i * stride + v]) - pivot[v];
            }
            LANE_LOOP(v, V) own[v] /= acc_t(more);
            for (int i = 0; i < more; ++i)
                LANE_LOOP(v, V) {
                    const acc_t deviation = acc_t(p[i * stride + v]) - pivot[v] - own[v];
                    spread[v] += deviation * deviation;
                }
            merge(more, own, spread);
        }
    }

    // Writes them as those of channels c to c + used - 1 of C.
    __device__ void store(acc_t *means, acc_t *squares, int *counts, int64 chunk, int C, int c,
                          int used = V) const {
        FIRST_LANES(v, V, used) {
            means[chunk * C + c + v] = pivot[v] + mean[v];
            squares[chunk * C + c + v] = square[v];
        }
        if (c == 0) counts[chunk] = int(count);
    }
};
