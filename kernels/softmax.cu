// Softmax over the last axis, its Jacobian product, and cross-entropy, fused and textbook.
//
//   softmax        y_c  = exp(x_c - max x) / sum of exp(x - max x)
//   its gradient   dx_c = y_c * (dy_c - sum of dy * y)
//   fused          loss = sum over c of q_c * (log(sum of exp(z - max z)) - (z_c - max z))
//                  dz_c = softmax(z)_c * sum(q) - q_c
//                  q_c  = (1 - smoothing) * weight[label] * [c = label] + smoothing / C * weight[c]
//   textbook       loss = -log p[label],  dp[label] = -1 / p[label]
//
// Terms with q_c = 0 are left out, so logits of -inf are fine where they carry no target. A row
// with the ignored label gives zeros, one with a label outside [0, C) gives NaN and reads nothing.
//
// shapes   x, y, logits, dlogits (rows, C); labels, losses (rows); weight (C) or null
// bytes    a row is read from memory once (again from cache) and its gradient written once
// geometry a block takes whole rows, one after the other; its threads share the columns
#include "dialect.cuh"

using lanes_t = Simd<acc_t>::type;
constexpr int LANES = Simd<acc_t>::LANES;

struct Sum {
    template <typename V> __device__ V operator()(V a, V b) const { return a + b; }
};
struct Maximum {  // whether NaN wins does not matter: it makes the sum NaN
    template <typename V> __device__ V operator()(V a, V b) const { return a > b ? a : b; }
};

// body(c, count) for every LANES columns from c on; the last may be fewer.
template <class Body> __device__ __forceinline__ void for_columns(int C, const Body &body) {
    BLOCK_STRIDE(i, C / LANES) body(i * LANES, LANES);
    if (LANES > 1 && C % LANES > 0) body(C - C % LANES, C % LANES);
}

// A row's exp(x - maximum) over their sum. An all -inf row gives NaN, as it must.
struct Exponentials {
    const T *x;
    T *kept;  // where they are kept until the sum is known, unless null
    acc_t maximum, sum;

    __device__ __forceinline__ Exponentials(const T *x, T *kept, int C) : x(x), kept(kept) {
        const T least = T(-infinity());  // beside the row: adds nothing
        lanes_t maxima = acc_t(-infinity()) - lanes_t{}, sums = {};
        for_columns(C, [&](int c, int count) {
            maxima = Maximum()(maxima, lanes_t(load_first(x + c, count, least)));
        });
        maximum = reduce_lanes<acc_t>(maxima, Maximum());
        for_columns(C, [&](int c, int count) {
            fetch_ahead(x + c, 1, C);  // the next row, while this one is calculated
            if (kept) fetch_ahead(kept + c, 1, C);
            const lanes_t e = exp_lanes(lanes_t(load_first(x + c, count, least)) - maximum);
            if (kept) store_first(kept + c, e, count);
            sums += e;
        });
        sum = reduce_lanes<acc_t>(sums, Sum());
    }
    __device__ __forceinline__ lanes_t load(int c, int count) const {
        if (kept) return lanes_t(load_first(kept + c, count));
        return exp_lanes(lanes_t(load_first(x + c, count)) - maximum);
    }
};

// Whether a second look at what was stored, in cache, costs less than a second exp: on cpu, unless
// the row is so short that the store would have to be waited for.
__device__ inline bool keep(int C) { return LANES > 1 && C > 8 * LANES; }

KERNEL softmax_forward(const T *__restrict__ x, T *__restrict__ y, int64 rows, int C) {
    BLOCK_ROWS(row, rows) {
        T *target = y + row * C;
        const Exponentials e(x + row * C, keep(C) ? target : nullptr, C);
        const acc_t share = acc_t(1) / e.sum;
        for_columns(
            C, [&](int c, int count) { store_first(target + c, e.load(c, count) * share, count); });
    }
}

KERNEL softmax_backward(const T *__restrict__ dy, const T *__restrict__ y, T *__restrict__ dx,
                        int64 rows, int C) {
    BLOCK_ROWS(row, rows) {
        const int64 first = row * C;
        lanes_t sums = {};
        for_columns(C, [&](int c, int count) {
            sums += lanes_t(load_first(dy + first + c, count)) *
                    lanes_t(load_first(y + first + c, count));
        });
        const acc_t sum = reduce_lanes<acc_t>(sums, Sum());
        for_columns(C, [&](int c, int count) {
            const lanes_t value = lanes_t(load_first(dy + first + c, count)) - sum;
            store_first(dx + first + c, lanes_t(load_first(y + first + c, count)) * value, count);
        });
    }
}

// The summed weights of the rows with a label that counts: the divisor of a mean. One block. In
// double, like the sum of the losses: on cpu a single thread adds up the whole batch.
KERNEL loss_divisor(const int64 *__restrict__ labels, const T *__restrict__ weight,
                    acc_t *__restrict__ divisor, int64 rows, int C, int64 ignored) {
    double sum = 0;
    BLOCK_STRIDE(row, rows) {
        const int64 label = labels[row];
        if (label == ignored || label < 0 || label >= C) continue;
        sum += weight ? acc_t(weight[label]) : acc_t(1);
    }
    sum = block_reduce(sum, Sum());
    if (threadIdx.x == 0) divisor[0] = acc_t(sum);
}

// Row losses and, unless dlogits is null, their gradient divided by divisor[0] if that is given.
KERNEL softmax_cross_entropy_rows(const T *__restrict__ logits, const int64 *__restrict__ labels,
                                  const T *__restrict__ weight, const acc_t *__restrict__ divisor,
                                  acc_t *__restrict__ losses, T *__restrict__ dlogits, int64 rows,
                                  int C, int64 ignored, double smoothing) {
    const acc_t spread = acc_t(smoothing) / acc_t(C);
    const acc_t scale = divisor ? acc_t(1) / divisor[0] : acc_t(1);
    const auto weights = [&](int c, int count) {
        return weight ? lanes_t(load_first(weight + c, count)) : acc_t(1) - lanes_t{};
    };
    BLOCK_ROWS(row, rows) {
        const T *z = logits + row * C;
        T *dz = dlogits ? dlogits + row * C : nullptr;
        const int64 label = labels[row];
        if (label == ignored || label < 0 || label >= C) {
            const acc_t value = label == ignored ? acc_t(0) : acc_t(not_a_number());
            if (threadIdx.x == 0) losses[row] = value;
            if (dz)
                BLOCK_STRIDE(c, C) dz[c] = T(value);
            continue;
        }
        const Exponentials e(z, keep(C) ? dz : nullptr, C);
        const acc_t maximum = e.maximum, log_sum = log(e.sum);
        const acc_t hit =
            (acc_t(1) - acc_t(smoothing)) * (weight ? acc_t(weight[label]) : acc_t(1));
        acc_t loss = hit == 0 ? acc_t(0) : hit * (log_sum - (acc_t(z[label]) - maximum));
        acc_t mass = hit;
        if (spread != 0) {  // what the other classes have of the target
            lanes_t distances = {}, shares = {};
            for_columns(C, [&](int c, int count) {
                const lanes_t w = weights(c, count);
                const lanes_t value = lanes_t(load_first(z + c, C - c, T(maximum))) - maximum;
                distances += w == 0 ? lanes_t{} : w * value;
                shares += w;
            });
            const acc_t distance = reduce_lanes<acc_t>(distances, Sum());
            const acc_t share = reduce_lanes<acc_t>(shares, Sum());
            const acc_t total = weight ? share : acc_t(C);  // lanes past the end have weight 1, too
            loss += spread * (total * log_sum - distance);
            mass += spread * total;
        }
        if (threadIdx.x == 0) losses[row] = loss;
        if (!dz) continue;
        const acc_t factor = mass / e.sum * scale;
        for_columns(C, [&](int c, int count) {
            const auto here = lane_numbers<acc_t>() == int(label) - c;
            const lanes_t q = (here ? hit - lanes_t{} : lanes_t{}) + spread * weights(c, count);
            store_first(dz + c, e.load(c, count) * factor - q * scale, count);
        });
    }
}

// Textbook cross-entropy of probabilities: row losses, and the gradient of their mean. `floor`
// keeps the logarithm of a probability that underflowed finite.
KERNEL cross_entropy_rows(const T *__restrict__ p, const int64 *__restrict__ labels,
                          const acc_t *__restrict__ divisor, acc_t *__restrict__ losses,
                          T *__restrict__ dp, int64 rows, int C, double floor) {
    GRID_STRIDE(row, rows) {
        const int64 label = labels[row];
        const bool valid = label >= 0 && label < C;
        acc_t value = valid ? acc_t(p[row * C + label]) : acc_t(not_a_number());
        if (value < acc_t(floor)) value = acc_t(floor);
        losses[row] = -log(value);
        const T others = T(valid ? acc_t(0) : value);
        for (int c = 0; c < C; ++c) dp[row * C + c] = others;
        if (valid) dp[row * C + label] = T(acc_t(-1) / (value * divisor[0]));
    }
}

// loss[0] = sum of the row losses in a fixed order, over divisor[0] if given; the mean of nothing
// is 0 / 0. One block.
KERNEL sum_losses(const acc_t *__restrict__ losses, const acc_t *__restrict__ divisor,
                  T *__restrict__ loss, int64 rows) {
    double sum = 0;
    BLOCK_STRIDE(row, rows) sum += losses[row];
    sum = block_reduce(sum, Sum());
    if (threadIdx.x == 0) loss[0] = T(divisor ? sum / divisor[0] : sum);
}
