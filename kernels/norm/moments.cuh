// Means and sums of squares about them, computed in one pass over the values and merged in order.
//
// Groups of values, each about its own mean, are merged to chunks, and chunks to the whole, by the
// update of Chan, Golub and LeVeque (1983): a mean of 1e4 with a deviation of 1 survives in
// float32. Means are relative to a pivot, the first value, so that the many updates round small
// numbers. Each value is divided before it is added, since a sum of large ones would be infinite.
//
// shapes   means, squares (chunks, C); counts (chunks), the values of a chunk in each channel
#pragma once

#include "common/channels.cuh"

// For `count` values of V neighbouring channels: the mean, relative to a pivot, and squares about
// it.
template <int V> struct Group {
    acc_t mean[V], square[V];
    int64 count;

    // Merges a group of `more` values: its mean, relative to the same pivot, and squares about it.
    __device__ __forceinline__ void merge(int64 more, const acc_t *own, const acc_t *spread) {
        if (more == 0) return;  // an empty group has no mean
        const acc_t before = acc_t(count), share = acc_t(more) / (before + acc_t(more));
        LANE_LOOP(v, V) {
            const acc_t delta = own[v] - mean[v];
            mean[v] += delta * share;
            square[v] += spread[v] + delta * (before * share) * delta;
        }
        count += more;
    }
};

struct MergeGroups {
    template <int V> __device__ void operator()(Group<V> &own, const Group<V> &other) const {
        own.merge(other.count, other.mean, other.square);
    }
};

template <int V> struct Moments : Group<V> {
    using Group<V>::mean, Group<V>::square, Group<V>::count, Group<V>::merge;
    acc_t pivot[V] = {};

    __device__ Moments() : Group<V>{} {}
    template <typename E> __device__ explicit Moments(const E *first) : Group<V>{} {
        set_pivot(first);
    }

    // Adds rows, `stride` elements apart, from p on. Groups of rows are read once, and stay in
    // registers, or on `cpu` in the L1 cache, until their mean is known.
    __device__ __forceinline__ void add_rows(const T *p, int64 stride, int64 rows) {
        for (int64 r = 0; r < rows; r += GROUP, p += GROUP * stride)
            add_group(p, stride, int(smaller(rows - r, (int64)GROUP)));
    }

#ifdef __CUDACC__
    static constexpr int GROUP = V > 2 ? 4 : 8;

    template <typename E> __device__ void set_pivot(const E *first) { load_vector(pivot, first); }

    __device__ __forceinline__ void add_group(const T *p, int64 stride, int count) {
        acc_t value[GROUP][V], own[V] = {}, spread[V] = {};
        const acc_t share = acc_t(1) / acc_t(count);
        UNROLL(int i = 0; i < GROUP; ++i) {
            UNROLL(int v = 0; v < V; ++v) value[i][v] = pivot[v];
            if (i < count) load_vector(value[i], p + i * stride);
            UNROLL(int v = 0; v < V; ++v) own[v] += (value[i][v] -= pivot[v]) * share;
        }
        UNROLL(int i = 0; i < GROUP; ++i) {
            if (i == count) break;
            UNROLL(int v = 0; v < V; ++v) {
                const acc_t deviation = value[i][v] - own[v];
                spread[v] += deviation * deviation;
            }
        }
        merge(count, own, spread);
    }
#else
    static constexpr int GROUP = 8;

    template <typename E> void set_pivot(const E *first) {
        LANE_LOOP(v, V) pivot[v] = acc_t(first[v]);
    }

    void add_group(const T *p, int64 stride, int count) {
        acc_t own[V] = {}, spread[V] = {};
        const acc_t share = acc_t(1) / acc_t(count);
        for (int i = 0; i < count; ++i) {
            fetch_ahead(p + i * stride, V);
            LANE_LOOP(v, V) own[v] += (acc_t(p[i * stride + v]) - pivot[v]) * share;
        }
        for (int i = 0; i < count; ++i)
            LANE_LOOP(v, V) {
                const acc_t deviation = acc_t(p[i * stride + v]) - pivot[v] - own[v];
                spread[v] += deviation * deviation;
            }
        merge(count, own, spread);
    }
#endif

    // Writes the moments of channels c to c + used - 1 of C.
    __device__ void store(acc_t *means, acc_t *squares, int *counts, int64 chunk, int C, int c,
                          int used = V) const {
        FIRST_LANES(v, V, used) {
            means[chunk * C + c + v] = pivot[v] + mean[v];
            squares[chunk * C + c + v] = square[v];
        }
        if (c == 0) counts[chunk] = int(count);
    }
};

// for_channels: calls body(c, width) for all channels, c to c + decltype(width)::value - 1, which
// are for LANE_LOOPs.
#ifdef __CUDACC__

// The block's threads share the channels.
template <class Body> __device__ void for_channels(int C, const Body &body) {
    BLOCK_STRIDE(c, C) body(c, Number<1>());
}

// Writes the moments of rows begin to end - 1 of x, which are one chunk.
__device__ inline void moments_of_rows(const T *x, int64 begin, int64 end, int C, acc_t *means,
                                       acc_t *squares, int *counts, int64 chunk) {
    for_chunk(begin, end, C, [&](auto at, const ChunkRows &rows) {
        Moments<VECTOR> moments(x + begin * C + at.first);
        moments.add_rows(x + rows.begin * C + at.first, (int64)rows.step * C, rows.count());
        rows.reduce<Group<VECTOR>>(moments, MergeGroups());
        if (!rows.first) return;
        const int64 own = chunk * C + at.first;
        at.store(means + own, [&](int v) { return moments.pivot[v] + moments.mean[v]; });
        at.store(squares + own, [&](int v) { return moments.square[v]; });
        if (at.first == 0) counts[chunk] = int(moments.count);
    });
}

// Calls store(c, mean, squares about it) for each channel, merged over the chunks.
template <class Store>
__device__ void merge_chunks(const acc_t *means, const acc_t *squares, const int *counts,
                             int chunks, int C, const Store &store) {
    for_chunk(0, chunks, C, [&](auto at, const ChunkRows &rows) {
        Moments<VECTOR> merged(means + at.first);
        rows.each([&](int64 r) {
            const auto mean = at.load(means + r * C + at.first);
            const auto spread = at.load(squares + r * C + at.first);
            const int count = counts[r];
            return [&, mean, spread, count]() {
                acc_t own[VECTOR];
                UNROLL(int v = 0; v < VECTOR; ++v) own[v] = mean[v] - merged.pivot[v];
                merged.merge(count, own, spread.value);
            };
        });
        rows.reduce<Group<VECTOR>>(merged, MergeGroups());
        if (!rows.first) return;
        UNROLL(int v = 0; v < VECTOR; ++v)
            store(at.first + v, merged.pivot[v] + merged.mean[v], merged.square[v]);
    });
}

// The moments of rows m0 to m1 - 1 of y, in channels c0 to c1 - 1, which the block's threads have
// just stored: they share `parts` chunks.
__device__ inline void block_moments(const T *y, int C, int m0, int m1, int c0, int c1, int parts,
                                     acc_t *means, acc_t *squares, int *counts) {
    __syncthreads();  // the results are complete
    const int share = ceil_div(m1 - m0, parts), channels = c1 - c0;
    BLOCK_STRIDE(i, parts * channels) {
        const int part = i / channels, c = c0 + i % channels;
        const int begin = m0 + part * share, end = smaller(begin + share, m1);
        const T *from = y + (int64)smaller(begin, m1 - 1) * C + c;
        Moments<1> own(from);
        own.add_rows(from, C, end - begin);
        own.store(means, squares, counts, (int64)blockIdx.x * parts + part, C, c);
    }
}

#else

// At most four cache lines of sums at a time.
template <class Body> static inline void for_channels(int C, const Body &body) {
    constexpr int LINE = 64 / sizeof(acc_t);
    int c = 0;
    for (; c + 4 * LINE <= C; c += 4 * LINE) body(c, Number<4 * LINE>());
    for (; c + LINE <= C; c += LINE) body(c, Number<LINE>());
    for (; c + LINE / 2 <= C; c += LINE / 2) body(c, Number<LINE / 2>());
    for (; c < C; ++c) body(c, Number<1>());
}

static inline void moments_of_rows(const T *x, int64 begin, int64 end, int C, acc_t *means,
                                   acc_t *squares, int *counts, int64 chunk) {
    for_channels(C, [&](int c, auto width) {
        const T *first = x + begin * C + c;
        Moments<decltype(width)::value> moments(first);
        moments.add_rows(first, C, end - begin);
        moments.store(means, squares, counts, chunk, C, c);
    });
}

// A block merges one SIMD register of channels.
template <class Store>
static inline void merge_chunks(const acc_t *means, const acc_t *squares, const int *counts,
                                int chunks, int C, const Store &store) {
    constexpr int LANES = Simd<acc_t>::LANES;
    const int c = blockIdx.x * LANES, used = C - c;
    const auto pivot = load_first(means + c, used);
    acc_t own[LANES], spread[LANES];
    store_lanes(own, pivot);
    Moments<LANES> merged(own);
    for (int i = 0; i < chunks; ++i) {
        store_lanes(own, load_first(means + (int64)i * C + c, used) - pivot);
        store_lanes(spread, load_first(squares + (int64)i * C + c, used));
        merged.merge(counts[i], own, spread);
    }
    FIRST_LANES(v, LANES, smaller(used, LANES))
        store(c + v, merged.pivot[v] + merged.mean[v], merged.square[v]);
}

#endif
