// Neighbouring columns of a row, which a thread computes at once: on `cuda` 16 bytes in memory, in
// one access if they are aligned, so that few accesses keep memory busy; on `cpu` a SIMD register.
#pragma once

#include "dialect/lanes.cuh"

// COLUMNS neighbouring columns of a row from c on; `count` of its columns are left from there,
// which may be fewer or more. `step` counts the thread's spans.
struct Span { int c, count, step; };

struct Larger {  // may drop a NaN
    template <typename V> __device__ V operator()(V a, V b) const { return a > b ? a : b; }
};

#ifdef __CUDACC__

constexpr int COLUMNS = 16 / sizeof(T);
// Whether rows.py knows that rows are whole spans, and all arrays aligned to 16 bytes. Else each
// access finds out: in loops, the next load then waits for the branch.
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
// `value` in column i, zero in the others.
__device__ inline columns_t only(int i, acc_t value) {
    columns_t row;
    LANE_LOOP(l, COLUMNS) row.value[l] = l == i ? value : acc_t(0);
    return row;
}
// The columns of an array in a span; those past the end are `otherwise`.
__device__ inline columns_t load(const T *p, const Span &at, acc_t otherwise = 0) {
    columns_t row;
    if (ROW_WHOLE || Vector<T, COLUMNS>::fits(p + at.c, at.count))
        load_vector(row.value, p + at.c);
    else
        LANE_LOOP(i, COLUMNS) row.value[i] = i < at.count ? acc_t(p[at.c + i]) : otherwise;
    return row;
}
// `past` is that of write_first.
__device__ inline void write(T *p, const Span &at, const columns_t &row, bool) {
    if (ROW_WHOLE)
        store_vector(p + at.c, row.value);
    else
        store_row(p + at.c, row.value, at.count);
}

#else

constexpr int COLUMNS = LANES;
using columns_t = lanes_t;

static inline columns_t exp_of(columns_t a) { return exp_lanes(a); }
static inline columns_t product_or_zero(columns_t a, columns_t b) {
    return a == 0 ? columns_t{} : a * b;
}
static inline columns_t only(int i, acc_t value) {
    return lane_numbers<acc_t>() == i ? value - columns_t{} : columns_t{};
}
static inline columns_t load(const T *p, const Span &at, acc_t otherwise = 0) {
    return load_first(p + at.c, at.count, otherwise);
}
static inline void write(T *p, const Span &at, columns_t row, bool past) {
    write_first(p + at.c, row, at.count, past);
}

#endif
