// Some columns of a row, which a thread computes at once. On `cuda` neighbours that are one access
// of 16 bytes, so that few accesses keep memory busy; in rows that are not whole accesses, columns
// a warp apart, so that the lanes' are neighbours. On `cpu` a SIMD register of neighbours.
#pragma once

#include "dialect/lanes.cuh"

// COLUMNS columns of a row from c on, each `apart` from the one before; `count` of the row's
// columns are left from c on, which may be fewer or more. `step` counts the thread's spans.
struct Span {
    int c, count, step, apart;

    __device__ int column(int i) const { return c + i * apart; }
    __device__ bool has(int i) const { return i * apart < count; }
};

#ifdef __CUDACC__

struct Larger {  // drops a NaN
    __device__ acc_t operator()(acc_t a, acc_t b) const { return fmax(a, b); }
};

constexpr int COLUMNS = 16 / sizeof(T);
// Whether rows.py knows that rows are whole spans, each one access of all arrays.
#ifndef ROW_WHOLE
#define ROW_WHOLE 0
#endif

struct columns_t {
    acc_t value[COLUMNS];

    __device__ columns_t(acc_t all = 0) {
        LANE_LOOP(i, COLUMNS) value[i] = all;
    }
};
template <class Op>
__device__ inline columns_t by_column(columns_t a, const columns_t &b, const Op &op) {
    LANE_LOOP(i, COLUMNS) a.value[i] = op(a.value[i], b.value[i]);
    return a;
}
__device__ inline columns_t operator+(const columns_t &a, const columns_t &b) {
    return by_column(a, b, [](acc_t x, acc_t y) { return x + y; });
}
__device__ inline columns_t operator-(const columns_t &a, const columns_t &b) {
    return by_column(a, b, [](acc_t x, acc_t y) { return x - y; });
}
__device__ inline columns_t operator*(const columns_t &a, const columns_t &b) {
    return by_column(a, b, [](acc_t x, acc_t y) { return x * y; });
}
__device__ inline columns_t exp_of(columns_t a) {
    LANE_LOOP(i, COLUMNS) a.value[i] = exp_lanes(a.value[i]);
    return a;
}
// a * b, and 0 where a is.
__device__ inline columns_t product_or_zero(const columns_t &a, const columns_t &b) {
    return by_column(a, b, [](acc_t x, acc_t y) { return x == 0 ? acc_t(0) : x * y; });
}
// `value` in a span's column `column`, zero in the others.
__device__ inline columns_t only(const Span &at, int column, acc_t value) {
    const int place = column - at.c;
    columns_t row;
    LANE_LOOP(i, COLUMNS) row.value[i] = place == i * at.apart ? value : acc_t(0);
    return row;
}
// The columns of an array in a span; those past the end are `otherwise`.
__device__ inline columns_t load(const T *p, const Span &at, acc_t otherwise = 0) {
    columns_t row;
    if (ROW_WHOLE)
        load_vector(row.value, p + at.c);
    else
        LANE_LOOP(i, COLUMNS) row.value[i] = at.has(i) ? acc_t(p[at.column(i)]) : otherwise;
    return row;
}
// `past` is that of write_first.
template <typename E>
__device__ inline void write(E *p, const Span &at, const columns_t &row, bool) {
    if (ROW_WHOLE)
        store_vector(p + at.c, row.value);
    else
        LANE_LOOP(i, COLUMNS)
            if (at.has(i)) p[at.column(i)] = E(row.value[i]);
}

#else

constexpr int COLUMNS = LANES;
using columns_t = lanes_t;

struct Larger {  // may drop a NaN
    template <typename V> V operator()(V a, V b) const { return a > b ? a : b; }
};

static inline columns_t exp_of(columns_t a) { return exp_lanes(a); }
static inline columns_t product_or_zero(columns_t a, columns_t b) {
    return a == 0 ? columns_t{} : a * b;
}
static inline columns_t only(const Span &at, int column, acc_t value) {
    return lane_numbers<acc_t>() == column - at.c ? value - columns_t{} : columns_t{};
}
static inline columns_t load(const T *p, const Span &at, acc_t otherwise = 0) {
    return load_first(p + at.c, at.count, otherwise);
}
static inline void write(T *p, const Span &at, columns_t row, bool past) {
    write_first(p + at.c, row, at.count, past);
}

#endif
