// Rows whose columns are shared by the threads of a block or of a warp (the class Threads), all of
// which call these functions with the same arguments.
#pragma once

#include "common/columns.cuh"

#ifdef __CUDACC__

// As rows.py's: registers in which a thread of a warp keeps a row, and most threads of a block.
constexpr int OF_WARP = 32, ROW_THREADS = 2048 / sizeof(acc_t);

struct OfBlock {
    static constexpr int KEPT = 0;
    static __device__ int index() { return threadIdx.x; }
    static __device__ int count() { return blockDim.x; }
    template <class Op> static __device__ acc_t reduce(acc_t value, Op op) {
        return block_reduce(value, op);
    }
};
struct OfWarp {
    static constexpr int KEPT = 0;
    static __device__ int index() { return threadIdx.x % WARP; }
    static __device__ int count() { return WARP; }
    template <class Op> static __device__ acc_t reduce(acc_t value, Op op) {
        return warp_reduce(value, op);
    }
};
// Threads that keep their columns of a row in registers: at most so many spans each.
template <class Threads, int SPANS> struct Keep : Threads { static constexpr int KEPT = SPANS; };
// Columns are counted as acc_t: the compiler converts narrower ones once and keeps the results.
template <int REGISTERS> constexpr int COLUMNS_KEPT = REGISTERS * 4 / sizeof(acc_t);

// op over all columns of a row, of which each thread has reduced its own to `columns`.
template <class Threads, class Op>
__device__ inline acc_t reduce_columns(const columns_t &columns, Op op) {
    acc_t value = columns.value[0];
    UNROLL(int i = 1; i < COLUMNS; ++i) value = op(value, columns.value[i]);
    return Threads::reduce(value, op);
}

// Calls body(span) for all of a row's spans that are the thread's.
template <class Threads, class Body>
__device__ __forceinline__ void for_spans(int C, const Body &body) {
    const int first = Threads::index() * COLUMNS, stride = Threads::count() * COLUMNS;
    if constexpr (Threads::KEPT > 0) {
        UNROLL(int step = 0; step < Threads::KEPT; ++step) {
            const int c = first + step * stride;
            if (c < C) body(Span{c, C - c, step});
        }
    } else {
        for (unsigned c = first; c < unsigned(C); c += stride) body(Span{int(c), C - int(c), 0});
    }
}

// A row in memory, read once if its threads keep it, else each time.
template <class Threads, bool = (Threads::KEPT > 0)> struct Row {
    const T *p;

    __device__ Row(const T *p, int) : p(p) {}
    __device__ columns_t operator()(const Span &at, acc_t otherwise = 0) const {
        return load(p, at, otherwise);
    }
    __device__ void fetch_next(const Span &, int) const {}  // other threads hide the latency
};
template <class Threads> struct Row<Threads, true> {
    T values[Threads::KEPT][COLUMNS];

    __device__ Row(const T *p, int C) {
        for_spans<Threads>(C,
                           [&](const Span &at) { load_row(values[at.step], p + at.c, at.count); });
    }
    __device__ columns_t operator()(const Span &at, acc_t otherwise = 0) const {
        columns_t row;
        LANE_LOOP(i, COLUMNS) row.value[i] = i < at.count ? acc_t(values[at.step][i]) : otherwise;
        return row;
    }
    __device__ void fetch_next(const Span &, int) const {}
};

// Calls body(threads, row) for all rows of C columns. A warp takes a short row and keeps it, a
// block a longer one; it keeps that if so many registers of each thread are enough. Launched with
// rows.py's `row_geometry`, which is told the same: blocks are whole warps.
template <int REGISTERS, class Body>
__device__ __forceinline__ void each_row(int64 rows, int C, const Body &body) {
    if (C <= WARP * COLUMNS_KEPT<OF_WARP>) {
        const int warps = blockDim.x / WARP, warp = threadIdx.x / WARP;
        for (int64 r = (int64)blockIdx.x * warps + warp; r < rows; r += (int64)gridDim.x * warps)
            body(Keep<OfWarp, COLUMNS_KEPT<OF_WARP> / COLUMNS>(), r);
    } else if (C <= int(blockDim.x) * COLUMNS_KEPT<REGISTERS>) {
        BLOCK_ROWS(row, rows) body(Keep<OfBlock, COLUMNS_KEPT<REGISTERS> / COLUMNS>(), row);
    } else {
        BLOCK_ROWS(row, rows) body(OfBlock(), row);
    }
}

#else

struct OfBlock {
    static int index() { return 0; }
    static int count() { return 1; }
};
using OfWarp = OfBlock;

template <class Threads, class Op> static inline acc_t reduce_columns(columns_t columns, Op op) {
    return reduce_lanes<acc_t>(columns, op);
}
template <class Threads, class Body>
static __forceinline__ void for_spans(int C, const Body &body) {
    for (int c = 0; C - c >= COLUMNS; c += COLUMNS) body(Span{c, COLUMNS, 0});
    if (C % COLUMNS > 0) body(Span{C - C % COLUMNS, C % COLUMNS, 0});
}
template <class Threads> struct Row {
    const T *p;

    Row(const T *p, int) : p(p) {}
    columns_t operator()(const Span &at, acc_t otherwise = 0) const {
        return load(p, at, otherwise);
    }
    // The same span of the next row, which follows in memory.
    void fetch_next(const Span &at, int C) const { fetch_ahead(p + at.c, 1, C); }
};
template <int, class Body> static __forceinline__ void each_row(int64 rows, int, const Body &body) {
    BLOCK_ROWS(row, rows) body(OfBlock(), row);
}

#endif
