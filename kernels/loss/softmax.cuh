// Softmax and cross-entropy of one row: for softmax.cu, and for dense_loss.cu, which has just
// computed the row.
#pragma once

#include "common/rows.cuh"

// The largest value of a row; a NaN need not be it.
template <class Threads> __device__ __forceinline__ acc_t largest(const Row<Threads> &x, int C) {
    const acc_t least = -infinity();  // for columns past the end, too
    Reduction<Larger> maxima(least);
    for_spans<Threads>(C, [&](const Span &at) { maxima.add(at, x(at, least)); });
    return reduce_columns<Threads>(maxima);
}

// The exponentials exp(x - maximum) of a row, and their sum. A row of -inf alone gives NaN, and so
// does a NaN.
template <class Threads> struct Exponentials {
    Row<Threads> &row;  // x; from then on the exponentials, if threads keep it
    const acc_t maximum;
    T *const memory;  // else caches them, unless null
    acc_t sum;

    __device__ __forceinline__ Exponentials(Row<Threads> &x, acc_t maximum, T *memory, int C)
        : row(x), maximum(maximum), memory(memory) {
        Reduction<Sum> sums;
        for_spans<Threads>(C, [&](const Span &at) {
            row.fetch_next(at, C);  // while this one is computed
            const columns_t e = exp_of(row(at, -infinity()) - maximum);
            if constexpr (Row<Threads>::KEPT) row.set(at, e);
            if (memory) write(memory, at, e, false);
            sums.add(at, e);
        });
        sum = reduce_columns<Threads>(sums);
    }
    __device__ __forceinline__ columns_t operator()(const Span &at) const {
        if constexpr (Row<Threads>::KEPT) return row(at);
        return memory ? load(memory, at) : exp_of(row(at) - maximum);
    }
};

#ifdef __CUDACC__

// Where to cache a row's exponentials: nowhere, since its threads keep them, if they can.
__device__ inline T *keep(acc_t *, T *, int) { return nullptr; }

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

// Calls body(row, from, beside, to) for all rows, with pointers to the row of x, of another array
// and of y (null if there is none). If a thread has a row alone these are in shared memory, with y
// in place of x.
#ifdef __CUDACC__
template <class Threads, bool BESIDE = false, class Body>
__device__ __forceinline__ void for_softmax_rows(const T *x, const T *beside, T *y, int64 rows,
                                                 int C, const Body &body) {
    if constexpr (!Threads::ALONE) {
        each_row<Threads>(
            rows, [&](int64 row) { body(row, x + row * C, beside + row * C, row_of(y, row, C)); });
    } else {
        __shared__ T tiles[BESIDE ? 2 : 1][FewColumns::SIZE];
        const int64 begin = (int64)blockIdx.x * WARP, first = begin * C;
        const int count = int(smaller(rows - begin, (int64)WARP)), thread = threadIdx.x;
        const FewColumns few(count, C);
        few.load(tiles[0], x + first);
        if (BESIDE) few.load(tiles[BESIDE], beside + first);
        __syncthreads();
        T *own = tiles[0] + few.place(thread, 0);
        if (thread < count)
            body(begin + thread, own, tiles[BESIDE] + few.place(thread, 0), y ? own : nullptr);
        __syncthreads();
        if (y) few.store(y + first, tiles[0]);
    }
}

// Calls body(threads, row) for rows begin to end - 1, which the block has computed, of C columns
// and at most MOST: one thread per row of few columns, else one warp.
template <int MOST, class Body>
__device__ __forceinline__ void for_block_rows(int begin, int end, int C, const Body &body) {
    constexpr int SPANS = (MOST + WARP * COLUMNS - 1) / (WARP * COLUMNS);
    const int thread = threadIdx.x;
    if (MOST <= FewColumns::FEW || C <= FewColumns::FEW)
        for (int row = begin + thread; row < end; row += blockDim.x) body(RowThreads<1>(), row);
    else
        for (int row = begin + thread / WARP; row < end; row += blockDim.x / WARP)
            body(RowThreads<WARP, SPANS>(), row);
}
#else
template <class Threads, bool BESIDE = false, class Body>
static __forceinline__ void for_softmax_rows(const T *x, const T *beside, T *y, int64 rows, int C,
                                             const Body &body) {
    each_row<Threads>(
        rows, [&](int64 row) { body(row, x + row * C, beside + row * C, row_of(y, row, C)); });
}
template <int MOST, class Body>
static __forceinline__ void for_block_rows(int begin, int end, int, const Body &body) {
    for (int row = begin; row < end; ++row) body(RowThreads<>(), row);
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
    const auto weights = [&](const Span &at) {
        return weight ? load(weight, at) : acc_t(1) - columns_t{};
    };
    Row<Threads> row(z, C);
    const acc_t maximum = largest<Threads>(row, C);
    const acc_t hit = (acc_t(1) - smoothing) * (weight ? acc_t(weight[label]) : acc_t(1));
    acc_t mass = hit;  // the sum of q, and that of q * (z - max z)
    acc_t distance = hit == 0 ? acc_t(0) : hit * (acc_t(z[label]) - maximum);
    if (spread != 0) {
        Reduction<Sum> distances, shares;
        for_spans<Threads>(C, [&](const Span &at) {
            const columns_t w = weights(at);
            distances.add(at, product_or_zero(w, row(at, maximum) - maximum));
            shares.add(at, w);
        });
        distance += spread * reduce_columns<Threads>(distances);
        const acc_t share = reduce_columns<Threads>(shares);
        mass += spread * (weight ? share : acc_t(C));  // columns past the end have weight 1, too
    }
    const Exponentials<Threads> e(row, maximum, keep(memory, dz, C), C);
    const acc_t loss = (mass == 0 ? acc_t(0) : mass * log(e.sum)) - distance;
    if (!dz) return loss;
    const acc_t factor = mass / e.sum * scale;
    for_spans<Threads>(C, [&](const Span &at) {
        columns_t q = only(at, int(label), hit);
        if (spread != 0) q = q + spread * weights(at);
        write(dz, at, e(at) * factor - q * scale, past);
    });
    return loss;
}
