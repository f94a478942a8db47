// Softmax and cross-entropy of one row: for softmax.cu, and for dense_loss.cu, which has just
// computed the row.
#pragma once

#include "common/rows.cuh"

struct Larger {  // may drop a NaN: the sum is NaN all the same
    template <typename V> __device__ V operator()(V a, V b) const { return a > b ? a : b; }
};

// The exponentials exp(x - maximum) of a row, and their sum. A row of -inf alone gives NaN.
template <class Threads> struct Exponentials {
    const T *x;
    acc_t *kept;  // caches the exponentials (on cuda first x), unless null
    acc_t maximum, sum;

    __device__ __forceinline__ Exponentials(const T *x, acc_t *kept, int C) : x(x), kept(kept) {
        const T least = T(-infinity());  // for lanes past the end: adds nothing
        lanes_t maxima = acc_t(-infinity()) - lanes_t{}, sums = {};
        for_columns<Threads>(C, [&](int c, int count) {
            const lanes_t value = lanes_t(load_first(x + c, count, least));
            if (LANES == 1 && kept) store_first(kept + c, value, count);
            maxima = Larger()(maxima, value);
        });
        maximum = Threads::reduce(maxima, Larger());
        for_columns<Threads>(C, [&](int c, int count) {
            fetch_ahead(x + c, 1, C);  // the next row, while this one is computed
            const lanes_t value = LANES == 1 && kept ? lanes_t(load_first(kept + c, count))
                                                     : lanes_t(load_first(x + c, count, least));
            const lanes_t e = exp_lanes(value - maximum);
            if (kept) store_first(kept + c, e, count);
            sums += e;
        });
        sum = Threads::reduce(sums, Sum());
    }
    __device__ __forceinline__ lanes_t load(int c, int count) const {
        if (kept) return lanes_t(load_first(kept + c, count));
        return exp_lanes(lanes_t(load_first(x + c, count)) - maximum);
    }
};

#ifdef __CUDACC__

// Where to cache a row and then its exponentials: in shared memory, if there is room. A thread
// reads only its own values there.
__device__ inline acc_t *keep(acc_t *memory, T *, int) { return memory; }

// Each thread has a row of its own.
struct OfThread {
    static constexpr bool CACHES = false;
    static __device__ int index() { return 0; }
    static __device__ int count() { return 1; }
    template <class Op> static __device__ acc_t reduce(acc_t value, Op) { return value; }
};

// Rows of at most FEW columns, one for each thread of a warp. The threads together copy them, since
// they are contiguous in global memory, to shared memory; then each handles one.
struct FewColumns {
    static constexpr int FEW = 32, SIZE = WARP * (FEW + 1);  // FEW: as softmax.py's
    int rows, C;

    // An odd number of elements from one row to the next: they are in different banks.
    __device__ int place(int row, int c) const { return row * (C | 1) + c; }
    __device__ void load(T *tile, const T *from) const {
        BLOCK_STRIDE(i, rows * C) tile[place(i / C, i % C)] = from[i];
    }
    __device__ void store(T *to, const T *tile) const {
        BLOCK_STRIDE(i, rows * C) to[i] = tile[place(i / C, i % C)];
    }
    __device__ FewColumns(int rows, int C) : rows(rows), C(C) {}
};

#else

// Where to cache a row's exponentials: null if computing exp twice takes less time, as for rows so
// short that a load would wait for the store; else `memory` or, if that is null, the result.
static inline T *keep(T *memory, T *result, int C) {
    if (C <= 8 * LANES) return nullptr;
    return memory ? memory : result;
}

#endif

// Calls body(threads, row, from, beside, to) for all rows, with pointers to the row of x, of
// another array and of y (null if there is none). If rows are short these are in shared memory,
// with y in place of x.
#ifdef __CUDACC__
template <bool BESIDE = false, class Body>
__device__ __forceinline__ void for_softmax_rows(const T *x, const T *beside, T *y, int64 rows,
                                                 int C, const Body &body) {
    if (C > FewColumns::FEW) {
        BLOCK_ROWS(row, rows)
        body(OfBlock(), row, x + row * C, beside + row * C, y ? y + row * C : nullptr);
        return;
    }
    __shared__ T tiles[BESIDE ? 2 : 1][FewColumns::SIZE];
    const int64 begin = (int64)blockIdx.x * WARP, first = begin * C;
    const int count = int(smaller(rows - begin, (int64)WARP)), thread = threadIdx.x;
    const FewColumns few(count, C);
    few.load(tiles[0], x + first);
    if (BESIDE) few.load(tiles[BESIDE], beside + first);
    __syncthreads();
    T *own = tiles[0] + few.place(thread, 0);
    if (thread < count)
        body(OfThread(), begin + thread, own, tiles[BESIDE] + few.place(thread, 0),
             y ? own : nullptr);
    __syncthreads();
    if (y) few.store(y + first, tiles[0]);
}

// Calls body(threads, row) for rows begin to end - 1, which the block has computed, of C columns
// and at most MOST: one thread per row of few columns, else one warp.
template <int MOST, class Body>
__device__ __forceinline__ void for_block_rows(int begin, int end, int C, const Body &body) {
    const int thread = threadIdx.x;
    if (MOST <= FewColumns::FEW || C <= FewColumns::FEW)
        for (int row = begin + thread; row < end; row += blockDim.x) body(OfThread(), row);
    else
        for (int row = begin + thread / WARP; row < end; row += blockDim.x / WARP)
            body(OfWarp(), row);
}
#else
template <bool BESIDE = false, class Body>
static __forceinline__ void for_softmax_rows(const T *x, const T *beside, T *y, int64 rows, int C,
                                             const Body &body) {
    BLOCK_ROWS(row, rows)
    body(OfBlock(), row, x + row * C, beside + row * C, y ? y + row * C : nullptr);
}
template <int MOST, class Body>
static __forceinline__ void for_block_rows(int begin, int end, int, const Body &body) {
    for (int row = begin; row < end; ++row) body(OfWarp(), row);
}
#endif

// Whether a row of this label is part of a mean.
__device__ inline bool counts(int64 label, int C, int64 ignored) {
    return label != ignored && label >= 0 && label < C;
}

// Returns a row's loss and, unless dz is null, writes its gradient times `scale`, which may be in
// place of z. `memory` is that of keep(), null if dz is; `past` is past_caches of all gradients.
template <class Threads>
__device__ __forceinline__ acc_t cross_entropy_row(const T *z, T *dz, acc_t *memory, bool past,
                                                   int64 label, const T *weight, acc_t scale, int C,
                                                   int64 ignored, acc_t smoothing) {
    if (!counts(label, C, ignored)) {
        const acc_t value = label == ignored ? acc_t(0) : acc_t(not_a_number());
        if (dz)
            for (int c = Threads::index(); c < C; c += Threads::count()) dz[c] = T(value);
        return value;
    }
    const acc_t spread = smoothing / acc_t(C);
    const auto weights = [&](int c, int count) {
        return weight ? lanes_t(load_first(weight + c, count)) : acc_t(1) - lanes_t{};
    };
    const Exponentials<Threads> e(z, keep(memory, dz, C), C);
    const acc_t maximum = e.maximum, log_sum = log(e.sum);
    const acc_t hit = (acc_t(1) - smoothing) * (weight ? acc_t(weight[label]) : acc_t(1));
    acc_t loss = hit == 0 ? acc_t(0) : hit * (log_sum - (acc_t(z[label]) - maximum));
    acc_t mass = hit;
    if (spread != 0) {  // the smoothed part of the target
        lanes_t distances = {}, shares = {};
        for_columns<Threads>(C, [&](int c, int count) {
            const lanes_t w = weights(c, count);
            const lanes_t value = lanes_t(load_first(z + c, C - c, T(maximum))) - maximum;
            distances += w == 0 ? lanes_t{} : w * value;
            shares += w;
        });
        const acc_t distance = Threads::reduce(distances, Sum());
        const acc_t share = Threads::reduce(shares, Sum());
        const acc_t total = weight ? share : acc_t(C);  // lanes past the end have weight 1, too
        loss += spread * (total * log_sum - distance);
        mass += spread * total;
    }
    if (!dz) return loss;
    const acc_t factor = mass / e.sum * scale;
    for_columns<Threads>(C, [&](int c, int count) {
        const auto here = lane_numbers<acc_t>() == int(label) - c;
        const lanes_t q = (here ? hit - lanes_t{} : lanes_t{}) + spread * weights(c, count);
        write_first(dz + c, e.load(c, count) * factor - q * scale, count, past);
    });
    return loss;
}
