// Rows whose columns are shared by threads of a block (the class Threads), all of which call these
// functions with the same arguments. rows.py chooses Threads for the number of columns.
#pragma once

#include "common/columns.cuh"

// A row of an array; null if the array is. With a sum instead of this choice, NVRTC splits what
// loops over spans store: one store of 16 bytes becomes four of 4, or eight of 2.
template <typename E> __device__ inline E *row_of(E *array, int64 row, int C) {
    return array ? array + row * C : nullptr;
}

#ifdef __CUDACC__

// THREADS neighbouring threads share a row: one, a warp, or all of the block if THREADS is 0. Each
// keeps its columns in registers, at most SPANS spans, unless SPANS is 0. A block has at most MOST
// threads, so few that each has the registers it needs.
template <int THREADS, int SPANS = 0> struct RowThreads {
    static constexpr bool ALONE = THREADS == 1;
    static constexpr int SHARING = THREADS, KEPT = SPANS;
    static constexpr int MOST = ALONE ? WARP : THREADS ? 4 * WARP : 2048 / sizeof(acc_t);

    static __device__ int count() { return THREADS ? THREADS : blockDim.x; }
    static __device__ int index() { return threadIdx.x % count(); }
    template <class Op> static __device__ acc_t reduce(acc_t value, Op op) {
        if constexpr (ALONE)
            return value;
        else if constexpr (THREADS > 0)
            return warp_reduce(value, op);
        else
            return block_reduce(value, op);
    }
};

// Reduces a thread's columns of a row by an operation. TURNS are for cpu.
template <class Op, int TURNS = 1> struct Reduction {
    columns_t all;

    __device__ explicit Reduction(acc_t start = 0) : all(start) {}
    __device__ void add(const Span &, const columns_t &columns) {
        all = by_column(all, columns, Op());
    }
};
// The result for all columns of the row.
template <class Threads, class Op, int TURNS>
__device__ inline acc_t reduce_columns(const Reduction<Op, TURNS> &own) {
    acc_t value = own.all.value[0];
    UNROLL(int i = 1; i < COLUMNS; ++i) value = Op()(value, own.all.value[i]);
    return Threads::reduce(value, Op());
}

// Calls body(span) for all of a row's spans that are the thread's. A warp's spans are neighbours.
template <class Threads, int TURNS = 1, class Body>
__device__ __forceinline__ void for_spans(int C, const Body &body) {
    constexpr bool NEIGHBOURS = ROW_WHOLE || Threads::ALONE;
    constexpr int APART = NEIGHBOURS ? 1 : WARP, LAST = (COLUMNS - 1) * APART;
    const int index = Threads::index(), stride = Threads::count() * COLUMNS;
    const int first = NEIGHBOURS ? index * COLUMNS : index + index / WARP * LAST;
    if constexpr (Threads::KEPT > 0) {
        UNROLL(int step = 0; step < Threads::KEPT; ++step) {
            const int c = first + step * stride;
            if (c < C) body(Span{c, C - c, step, APART});
        }
    } else {
        unsigned c = first;
        if constexpr (!Threads::ALONE) {  // the loads of four spans wait for memory together
            for (; c + 3 * stride + LAST < unsigned(C); c += 4 * stride)
                UNROLL(int i = 0; i < 4; ++i) body(Span{int(c + i * stride), LAST + 1, 0, APART});
        }
        NO_UNROLL(; c < unsigned(C); c += stride) body(Span{int(c), C - int(c), 0, APART});
    }
}

// Sums of columns over rows that the block's threads keep.
template <class Threads> struct ColumnSums {
    columns_t values[Threads::KEPT];

    __device__ void add(const Span &at, const columns_t &row) {
        values[at.step] = values[at.step] + row;
    }
    // Writes the sums of the block: warps that have rows of their own add theirs in turn.
    __device__ void store(acc_t *to, int C) const {
        constexpr bool BLOCK = Threads::SHARING == 0;
        __shared__ Vector<acc_t, COLUMNS> sums[BLOCK ? 1 : Threads::SHARING * Threads::KEPT];
        const int own = BLOCK ? 0 : threadIdx.x / Threads::SHARING;
        const int last = BLOCK ? 0 : blockDim.x / Threads::SHARING - 1;
        for (int turn = 0; turn <= last; ++turn) {
            if (!BLOCK) __syncthreads();
            if (turn != own) continue;
            for_spans<Threads>(C, [&](const Span &at) {
                const int place = at.step * Threads::SHARING + Threads::index();
                columns_t sum = values[at.step], before;
                if (turn > 0) load_vector(before.value, sums[place].value);
                sum = sum + before;
                if (turn == last)
                    write(to, at, sum, false);
                else
                    store_vector(sums[place].value, sum.value);
            });
        }
    }
};

// A row in memory, read once if its threads keep it, else each time.
template <class Threads, bool = (Threads::KEPT > 0)> struct Row {
    static constexpr bool KEPT = false;
    const T *p;

    __device__ Row(const T *p, int) : p(p) {}
    __device__ columns_t operator()(const Span &at, acc_t otherwise = 0) const {
        return load(p, at, otherwise);
    }
    __device__ void fetch_next(const Span &, int) const {}  // other threads hide the latency
};
template <class Threads> struct Row<Threads, true> {
    static constexpr bool KEPT = true;
    acc_t values[Threads::KEPT][COLUMNS];

    __device__ Row(const T *p, int C) {
        // ptxas spills some of 64 registers, unless all hold something before the loads.
        if (Threads::KEPT * COLUMNS >= 64)
            UNROLL(int step = 0; step < Threads::KEPT; ++step)
                LANE_LOOP(i, COLUMNS) values[step][i] = 0;
        for_spans<Threads>(C, [&](const Span &at) { set(at, load(p, at)); });
    }
    __device__ void set(const Span &at, const columns_t &row) {
        LANE_LOOP(i, COLUMNS) values[at.step][i] = row.value[i];
    }
    __device__ columns_t operator()(const Span &at, acc_t otherwise = 0) const {
        columns_t row;
        LANE_LOOP(i, COLUMNS)
            row.value[i] = ROW_WHOLE || at.has(i) ? values[at.step][i] : otherwise;
        return row;
    }
    __device__ void fetch_next(const Span &, int) const {}
};

// Calls body(row) for the rows from `begin` to `end` - 1, which are the block's.
template <class Threads, class Body>
__device__ __forceinline__ void each_row_of_block(int64 begin, int64 end, const Body &body) {
    const int sharing = Threads::count(), at_once = blockDim.x / sharing;
    for (int64 row = begin + threadIdx.x / sharing; row < end; row += at_once) body(row);
}
// Calls body(row) for all rows.
template <class Threads, class Body>
__device__ __forceinline__ void each_row(int64 rows, const Body &body) {
    const int sharing = Threads::count(), at_once = blockDim.x / sharing;
    const int64 first = (int64)blockIdx.x * at_once + threadIdx.x / sharing;
    for (int64 row = first; row < rows; row += (int64)gridDim.x * at_once) body(row);
}

#else

template <int = 1, int = 0> struct RowThreads {
    static int index() { return 0; }
    static int count() { return 1; }
};

// TURNS registers take turns in for_spans of so many: an operation need not wait for the one
// before.
template <class Op, int TURNS = 1> struct Reduction {
    columns_t turns[TURNS];

    explicit Reduction(acc_t start = 0) {
        UNROLL(int i = 0; i < TURNS; ++i) turns[i] = start - columns_t{};
    }
    void add(const Span &at, columns_t columns) { turns[at.step] = Op()(turns[at.step], columns); }
};
template <class Threads, class Op, int TURNS>
static inline acc_t reduce_columns(const Reduction<Op, TURNS> &own) {
    columns_t all = own.turns[0];
    UNROLL(int i = 1; i < TURNS; ++i) all = Op()(all, own.turns[i]);
    return reduce_lanes<acc_t>(all, Op());
}
template <class Threads, int TURNS = 1, class Body>
static __forceinline__ void for_spans(int C, const Body &body) {
    int c = 0;
    if (TURNS > 1)
        for (; C - c >= TURNS * COLUMNS; c += TURNS * COLUMNS)
            UNROLL(int i = 0; i < TURNS; ++i) body(Span{c + i * COLUMNS, COLUMNS, i});
    for (; C - c >= COLUMNS; c += COLUMNS) body(Span{c, COLUMNS, 0});
    if (C % COLUMNS > 0) body(Span{C - C % COLUMNS, C % COLUMNS, 0});
}
template <class Threads> struct Row {
    static constexpr bool KEPT = false;
    const T *p;

    Row(const T *p, int) : p(p) {}
    columns_t operator()(const Span &at, acc_t otherwise = 0) const {
        return load(p, at, otherwise);
    }
    // The same span of the next row, which follows in memory.
    void fetch_next(const Span &at, int C) const { fetch_ahead(p + at.c, 1, C); }
};
template <class Threads, class Body>
static __forceinline__ void each_row_of_block(int64 begin, int64 end, const Body &body) {
    for (int64 row = begin; row < end; ++row) body(row);
}
template <class Threads, class Body>
static __forceinline__ void each_row(int64 rows, const Body &body) {
    BLOCK_ROWS(row, rows) body(row);
}

#endif
