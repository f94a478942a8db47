// Layer normalisation over the last axis, and its gradient.
//
//   y  = gamma * xhat + beta,  xhat = (x - mean) * inv_std,  inv_std = 1 / sqrt(var + eps)
//   dx = inv_std * (g - mean(g) - xhat * mean(g * xhat)),  g = gamma * dy
//   dgamma = sum over rows of dy * xhat,  dbeta = sum over rows of dy
//
// The mean is computed relative to a pivot, the row's first value, so that a mean of 1e4 with a
// deviation of 1 survives in float32; the variance in a second pass, about the mean. If the pivot
// turns out to be an outlier, whose distance has rounded the others, another pass corrects both.
// (In rows of up to 17 columns no value can be so far from the mean.)
//
// shapes   x, y, dy, dx (rows, C); gamma, beta (C); mean, inv_std (rows); partials (chunks, C)
// bytes    forward reads x and writes y; the gradient reads dy and x, for dx and again for the sums
//          of columns, and writes dx. Rows too long for the registers are read again, from cache
// geometry rows: see rows.cuh; chunks: one block per chunk and group of columns, see channels.cuh
//
// The kernels of the gradient are for rows that no block of a GPU keeps; of shorter ones
// layer_norm_gradients.cu has it in one.
#include "norm/layer_norm.cuh"

using Threads = RowThreads<ROW_THREADS, ROW_SPANS>;

// The square of an outlier's distance from the mean, in variances: at four deviations, rounding
// costs a sum two bits.
constexpr int OUTLIER = 16;

KERNEL __launch_bounds__(Threads::MOST, 1)
layer_norm_forward(const T *__restrict__ x, const T *__restrict__ gamma, const T *__restrict__ beta,
                   T *__restrict__ y, acc_t *__restrict__ means, acc_t *__restrict__ inv_stds,
                   int64 rows, int C, double eps) {
    const acc_t share = acc_t(1) / acc_t(C);
    const bool past = past_caches<T>(rows, C);
    each_row<Threads>(rows, [=](int64 r) {
        const Row<Threads> row(x + r * C, C);
        T *const to = row_of(y, r, C);
        const acc_t pivot = acc_t(x[r * C]);
        Reduction<Sum, TURNS> sums, squares;
        for_spans<Threads, TURNS>(C, [&](const Span &at) {
            row.fetch_next(at, C);  // while this one is computed
            sums.add(at, row(at, pivot) - pivot);
        });
        const acc_t from_pivot = reduce_columns<Threads>(sums) * share;
        const acc_t near = pivot + from_pivot;
        acc_t mean = near;
        for_spans<Threads, TURNS>(C, [&](const Span &at) {
            const columns_t deviation = row(at, near) - near;
            squares.add(at, deviation * deviation);
        });
        acc_t variance = reduce_columns<Threads>(squares) * share;
        acc_t past_near = from_pivot - (near - pivot);  // the mean's distance, by rounding
        if (from_pivot * from_pivot > OUTLIER * variance) {
            Reduction<Sum, TURNS> deviations;
            for_spans<Threads, TURNS>(
                C, [&](const Span &at) { deviations.add(at, row(at, near) - near); });
            past_near = reduce_columns<Threads>(deviations) * share;
            mean = near + past_near;
        }
        variance = variance - past_near * past_near;  // about the mean, not about `near`
        if (variance < 0) variance = 0;               // by rounding
        const acc_t inv_std = acc_t(1) / sqrt(variance + acc_t(eps));
        for_spans<Threads>(C, [&](const Span &at) {
            // Not value - mean: a large mean is rounded.
            const columns_t centred = row(at) - near - past_near;
            write(to, at, centred * inv_std * load(gamma, at) + load(beta, at), past);
        });
        if (Threads::index() == 0) {
            means[r] = mean;
            inv_stds[r] = inv_std;
        }
    });
}

KERNEL __launch_bounds__(Threads::MOST, 1)
layer_norm_input_gradient(const T *__restrict__ dy, const T *__restrict__ x,
                          const T *__restrict__ gamma, const acc_t *__restrict__ means,
                          const acc_t *__restrict__ inv_stds, T *__restrict__ dx, int64 rows,
                          int C) {
    const bool past = past_caches<T>(rows, C);
    each_row<Threads>(rows, [=](int64 r) {
        const auto no_sums = [](const Span &, const columns_t &, const columns_t &) {};
        input_gradient<Threads>(dy + r * C, x + r * C, gamma, means[r], inv_stds[r],
                                row_of(dx, r, C), C, past, no_sums);
    });
}

// Partial sums over each chunk of rows.
KERNEL __launch_bounds__(TEAM, TEAMS)
layer_norm_gradient_chunks(const T *__restrict__ dy, const T *__restrict__ x,
                           const acc_t *__restrict__ means, const acc_t *__restrict__ inv_stds,
                           acc_t *__restrict__ sums, acc_t *__restrict__ products, int64 rows,
                           int C, int rows_per_chunk) {
    const int64 begin = (int64)blockIdx.x * rows_per_chunk;
    const int64 end = smaller(begin + rows_per_chunk, rows);
    column_sums(dy, x, means, inv_stds, sums, products, begin, end, C);
}
