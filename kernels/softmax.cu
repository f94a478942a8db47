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
// geometry one block a row; the threads share the columns
#include "dialect.cuh"

struct Sum {
    template <typename E> __device__ E operator()(E a, E b) const { return a + b; }
};
struct Maximum {  // NaN wins
    template <typename E> __device__ E operator()(E a, E b) const {
        return a > b || is_nan(a) ? a : b;
    }
};

// The maximum of a row and the sum of exp(x - maximum). An all -inf row gives NaN, as it must.
__device__ inline void normaliser(const T *x, int C, acc_t &maximum, acc_t &sum) {
    maximum = -infinity();
    BLOCK_STRIDE(c, C) maximum = Maximum()(maximum, acc_t(x[c]));
    maximum = block_reduce(maximum, Maximum());
    sum = 0;
    BLOCK_STRIDE(c, C) sum += exp(acc_t(x[c]) - maximum);
    sum = block_reduce(sum, Sum());
}

KERNEL softmax_forward(const T *__restrict__ x, T *__restrict__ y, int C) {
    x += (int64)blockIdx.x * C;
    y += (int64)blockIdx.x * C;
    acc_t maximum, sum;
    normaliser(x, C, maximum, sum);
    BLOCK_STRIDE(c, C) y[c] = T(exp(acc_t(x[c]) - maximum) / sum);
}

KERNEL softmax_backward(const T *__restrict__ dy, const T *__restrict__ y, T *__restrict__ dx,
                        int C) {
    dy += (int64)blockIdx.x * C;
    y += (int64)blockIdx.x * C;
    dx += (int64)blockIdx.x * C;
    acc_t sum = 0;
    BLOCK_STRIDE(c, C) sum += acc_t(dy[c]) * acc_t(y[c]);
    sum = block_reduce(sum, Sum());
    BLOCK_STRIDE(c, C) dx[c] = T(acc_t(y[c]) * (acc_t(dy[c]) - sum));
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
                                  acc_t *__restrict__ losses, T *__restrict__ dlogits, int C,
                                  int64 ignored, double smoothing) {
    const T *z = logits + (int64)blockIdx.x * C;
    T *dz = dlogits ? dlogits + (int64)blockIdx.x * C : nullptr;
    const int64 label = labels[blockIdx.x];
    if (label == ignored || label < 0 || label >= C) {
        const acc_t value = label == ignored ? acc_t(0) : acc_t(not_a_number());
        if (threadIdx.x == 0) losses[blockIdx.x] = value;
        if (dz)
            BLOCK_STRIDE(c, C) dz[c] = T(value);
        return;
    }
    acc_t maximum, sum;
    normaliser(z, C, maximum, sum);
    const acc_t log_sum = log(sum), spread = acc_t(smoothing) / acc_t(C);
    const acc_t hit = (acc_t(1) - acc_t(smoothing)) * (weight ? acc_t(weight[label]) : acc_t(1));
    const auto target = [&](int c) {
        return (c == label ? hit : acc_t(0)) + spread * (weight ? acc_t(weight[c]) : acc_t(1));
    };
    acc_t loss = 0, mass = 0;
    BLOCK_STRIDE(c, C) {
        const acc_t q = target(c);
        if (q == 0) continue;
        loss += q * (log_sum - (acc_t(z[c]) - maximum));
        mass += q;
    }
    loss = block_reduce(loss, Sum());
    mass = block_reduce(mass, Sum());
    const acc_t scale = divisor ? acc_t(1) / divisor[0] : acc_t(1);
    if (threadIdx.x == 0) losses[blockIdx.x] = loss;
    if (!dz) return;
    BLOCK_STRIDE(c, C) {
        const acc_t p = exp(acc_t(z[c]) - maximum) / sum;
        dz[c] = T((p * mass - target(c)) * scale);
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
        for (int c = 0; c < C; ++c)
            dp[row * C + c] = T(c == label ? acc_t(-1) / (value * divisor[0]) : acc_t(0));
        if (!valid)
            for (int c = 0; c < C; ++c) dp[row * C + c] = T(value);
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
