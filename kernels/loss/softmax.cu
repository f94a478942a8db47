// Softmax over the last axis, its gradient, and cross-entropy: fused with softmax, and textbook.
//
//   softmax        y_c  = exp(x_c - max x) / sum of exp(x - max x)
//   its gradient   dx_c = y_c * (dy_c - sum of dy * y)
//   fused          loss = sum over c of q_c * (log(sum of exp(z - max z)) - (z_c - max z))
//                  dz_c = softmax(z)_c * sum(q) - q_c
//                  q_c  = (1 - smoothing) * weight[label] * [c = label] + smoothing / C * weight[c]
//   textbook       loss = -log p[label],  dp[label] = -1 / p[label]
//
// Terms with q_c = 0 are left out, so logits of -inf are fine if their target is 0. A row with the
// ignored label gives zeros; one with a label outside [0, C) gives NaN and reads nothing.
//
// shapes   x, y, logits, dlogits (rows, C); labels, losses (rows); weight (C) or null
// bytes    a row is read from memory once (again from cache, if it is too long for the registers)
//          and its gradient written once
// geometry rows, see rows.cuh; on cuda a warp takes 32 rows of up to 32 columns, a thread each. On
//          cpu `room` is C if shared memory caches a row's exponentials, else 0
#include "loss/softmax.cuh"

using Threads = RowThreads<ROW_THREADS, ROW_SPANS>;

KERNEL __launch_bounds__(Threads::MOST, 1)
softmax_forward(const T *__restrict__ x, T *__restrict__ y, int64 rows, int C, int room) {
    DYNAMIC_SHARED(acc_t, memory);
    // Without room, the result caches the exponentials, so it must not bypass the caches.
    const bool past = room && past_caches<T>(rows, C);
    const auto of_row = [&](int64, const T *from, const T *, T *to) {
        Row<Threads> x(from, C);
        T *const cache = keep(room ? memory : nullptr, to, C);
        const Exponentials<Threads> e(x, largest<Threads>(x, C), cache, C);
        const acc_t share = acc_t(1) / e.sum;
        for_spans<Threads>(C, [&](const Span &at) { write(to, at, e(at) * share, past); });
    };
    for_softmax_rows<Threads>(x, x, y, rows, C, of_row);
}

KERNEL __launch_bounds__(Threads::MOST, 1)
softmax_backward(const T *__restrict__ dy, const T *__restrict__ y, T *__restrict__ dx, int64 rows,
                 int C) {
    const auto of_row = [&](int64, const T *dy, const T *y, T *dx) {
        const Row<Threads> gradient(dy, C), value(y, C);
        Reduction<Sum> sums;
        for_spans<Threads>(C, [&](const Span &at) { sums.add(at, gradient(at) * value(at)); });
        const acc_t sum = reduce_columns<Threads>(sums);
        for_spans<Threads>(
            C, [&](const Span &at) { write(dx, at, value(at) * (gradient(at) - sum), false); });
    };
    for_softmax_rows<Threads, true>(dy, y, dx, rows, C, of_row);
}

// The sum of the weights of the rows that count: the divisor of a mean. One block. In double, like
// the sum of the losses, since on cpu a single thread adds up the whole batch.
KERNEL loss_divisor(const int64 *__restrict__ labels, const T *__restrict__ weight,
                    acc_t *__restrict__ divisor, int64 rows, int C, int64 ignored) {
    double sum = 0;
    BLOCK_STRIDE(row, rows) {
        const int64 label = labels[row];
        if (!counts(label, C, ignored)) continue;
        sum += weight ? acc_t(weight[label]) : acc_t(1);
    }
    sum = block_reduce(sum, Sum());
    if (threadIdx.x == 0) divisor[0] = acc_t(sum);
}

// Row losses and, unless dlogits is null, their gradient; divided by divisor[0], unless that is
// null.
KERNEL __launch_bounds__(Threads::MOST, 1)
softmax_cross_entropy_rows(const T *__restrict__ logits, const int64 *__restrict__ labels,
                           const T *__restrict__ weight, const acc_t *__restrict__ divisor,
                           acc_t *__restrict__ losses, T *__restrict__ dlogits, int64 rows, int C,
                           int64 ignored, double smoothing, int room) {
    DYNAMIC_SHARED(acc_t, memory);
    const bool past = room && past_caches<T>(rows, C);  // as in softmax_forward
    const acc_t scale = divisor ? acc_t(1) / divisor[0] : acc_t(1);
    const auto of_row = [&](int64 row, const T *z, const T *, T *dz) {
        const acc_t loss =
            cross_entropy_row<Threads>(z, dz, room ? memory : nullptr, past, labels[row], weight,
                                       scale, C, ignored, acc_t(smoothing));
        if (Threads::index() == 0) losses[row] = loss;
    };
    for_softmax_rows<Threads>(logits, logits, dlogits, rows, C, of_row);
}

// Textbook cross-entropy of probabilities: row losses, and the gradient of their mean. Smaller
// probabilities count as `floor`, so that the logarithm stays finite.
KERNEL __launch_bounds__(Threads::MOST, 1)
cross_entropy_rows(const T *__restrict__ p, const int64 *__restrict__ labels,
                   const acc_t *__restrict__ divisor, acc_t *__restrict__ losses,
                   T *__restrict__ dp, int64 rows, int C, double floor) {
    const auto of_row = [&](int64 row, const T *p, const T *, T *dp) {
        const int64 label = labels[row];
        const bool valid = label >= 0 && label < C;
        acc_t value = valid ? acc_t(p[label]) : acc_t(not_a_number());
        if (value < acc_t(floor)) value = acc_t(floor);
        if (Threads::index() == 0) losses[row] = -log(value);
        const acc_t slope = valid ? acc_t(-1) / (value * divisor[0]) : acc_t(0);
        const columns_t others = (valid ? acc_t(0) : value) - columns_t{};
        const int hit = valid ? int(label) : -1;
        for_spans<Threads>(
            C, [&](const Span &at) { write(dp, at, others + only(at, hit, slope), false); });
    };
    for_softmax_rows<Threads>(p, p, dp, rows, C, of_row);
}

// loss[0] = sum of the row losses in a fixed order, divided by divisor[0] unless that is null; the
// mean of rows without weight is NaN. One block.
KERNEL sum_losses(const acc_t *__restrict__ losses, const acc_t *__restrict__ divisor,
                  T *__restrict__ loss, int64 rows) {
    double sum = 0;
    BLOCK_STRIDE(row, rows) sum += losses[row];
    sum = block_reduce(sum, Sum());
    if (threadIdx.x != 0) return;
    if (divisor) sum = divisor[0] == 0 ? not_a_number() : sum / divisor[0];
    loss[0] = T(sum);
}
