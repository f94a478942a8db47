// Softmax and cross-entropy of one row: for softmax.cu, and for dense_loss.cu, which has just
// computed the row.
//
// The class Threads tells which threads share the columns of a row, all with the same arguments.
#pragma once

#include "dialect/lanes.cuh"

struct Larger {  // may drop a NaN: the sum is NaN all the same
    template <typename V> __device__ V operator()(V a, V b) const { return a > b ? a : b; }
};

struct OfBlock {
    static __device__ int index() { return threadIdx.x; }
    static __device__ unsigned count() { return blockDim.x; }
    template <class Op> static __device__ acc_t reduce(lanes_t value, Op op) {
        return reduce_lanes<acc_t>(value, op);
    }
};
struct OfWarp {
    static __device__ int index() { return threadIdx.x % WARP; }
    static __device__ unsigned count() { return WARP; }
    template <class Op> static __device__ acc_t reduce(lanes_t value, Op op) {
        return reduce_warp_lanes<acc_t>(value, op);
    }
};

// Calls body(c, count) for LANES columns from c on at a time; the last call may have fewer.
template <class Threads, class Body>
__device__ __forceinline__ void for_columns(int C, const Body &body) {
    for (int i = Threads::index(); i < C / LANES; i += Threads::count()) body(i * LANES, LANES);
    if (LANES > 1 && C % LANES > 0) body(C - C % LANES, C % LANES);
}

// The exponentials exp(x - maximum) of a row, and their sum. A row of -inf alone gives NaN.
template <class Threads> struct Exponentials {
    const T *x;
    T *kept;  // caches the exponentials, unless null
    acc_t maximum, sum;

    __device__ __forceinline__ Exponentials(const T *x, T *kept, int C) : x(x), kept(kept) {
        const T least = T(-infinity());  // for lanes past the end: adds nothing
        lanes_t maxima = acc_t(-infinity()) - lanes_t{}, sums = {};
        for_columns<Threads>(C, [&](int c, int count) {
            maxima = Larger()(maxima, lanes_t(load_first(x + c, count, least)));
        });
        maximum = Threads::reduce(maxima, Larger());
        for_columns<Threads>(C, [&](int c, int count) {
            fetch_ahead(x + c, 1, C);  // the next row, while this one is computed
            const lanes_t e = exp_lanes(lanes_t(load_first(x + c, count, least)) - maximum);
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

// Where to cache a row's exponentials: null if computing exp twice takes less time, as on cuda, and
// on cpu for rows so short that a load would wait for the store; else `memory` or, if that is null,
// the result.
__device__ inline T *keep(T *memory, T *result, int C) {
    if (LANES == 1 || C <= 8 * LANES) return nullptr;
    return memory ? memory : result;
}

// Whether a row of this label is part of a mean.
__device__ inline bool counts(int64 label, int C, int64 ignored) {
    return label != ignored && label >= 0 && label < C;
}

// Returns a row's loss and, unless dz is null, writes its gradient times `scale`. `memory` is that
// of keep(), null if dz is; `past` is past_caches of all gradients.
template <class Threads>
__device__ __forceinline__ acc_t cross_entropy_row(const T *z, T *dz, T *memory, bool past,
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
