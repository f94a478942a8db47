// Batch normalisation over all but the last axis, with an optional ReLU, and its gradient.
//
//   y  = gamma * xhat + beta,  xhat = (x - mean) * inv_std,  inv_std = 1 / sqrt(var + eps)
//   dx = gamma * inv_std * (dy - mean(dy) - xhat * mean(dy * xhat))      batch statistics
//   dx = gamma * inv_std * dy                                            running statistics
//   dgamma = sum(dy * xhat), dbeta = sum(dy); with ReLU, dy counts as 0 where y <= 0
//
// The variance is computed in one pass over x, or by the convolution that wrote x: see moments.cuh.
//
// shapes   x, y, dy, dx (rows, C); gamma, beta, mean, inv_std (C); partials (chunks, C)
// bytes    forward reads x twice and writes y; backward reads dy, x and, with ReLU, y twice and
//          writes dx
// geometry chunks: one block per chunk and group of channels; merge, sums: one block per group (on
//          cpu all channels are one, but for merge a SIMD register is); the rest: any grid. Threads
//          share channels and rows, see channels.cuh
#include "norm/batchnorm_gradient.cuh"
#include "norm/moments.cuh"

// The type of the running statistics: T, or float32 beside narrower ones.
#ifndef TYPE_stat_t
#define TYPE_stat_t TYPE_T
#endif
using stat_t = TYPE_stat_t;

KERNEL batch_norm_chunks(const T *__restrict__ x, acc_t *__restrict__ means,
                         acc_t *__restrict__ squares, int *__restrict__ counts, int64 rows, int C,
                         int rows_per_chunk) {
    const int64 begin = (int64)blockIdx.x * rows_per_chunk;
    const int64 end = smaller(begin + rows_per_chunk, rows);
    moments_of_rows(x, begin, end, C, means, squares, counts, blockIdx.x);
}

// Merges the chunks and updates the running statistics, with the unbiased variance, for which
// batchnorm.py requires two rows.
KERNEL __launch_bounds__(TEAM, TEAMS)
batch_norm_merge(const acc_t *__restrict__ means, const acc_t *__restrict__ squares,
                 const int *__restrict__ counts, acc_t *__restrict__ mean,
                 acc_t *__restrict__ inv_std, stat_t *__restrict__ running_mean,
                 stat_t *__restrict__ running_var, int64 rows, int C, int chunks, double momentum,
                 double eps) {
    const acc_t keep = acc_t(1 - momentum), take = acc_t(momentum);
    merge_chunks(means, squares, counts, chunks, C, [=](int c, acc_t centre, acc_t square) {
        const acc_t unbiased = square / acc_t(rows - 1);
        mean[c] = centre;
        inv_std[c] = acc_t(1) / sqrt(square / acc_t(rows) + acc_t(eps));
        running_mean[c] = stat_t(keep * acc_t(running_mean[c]) + take * centre);
        running_var[c] = stat_t(keep * acc_t(running_var[c]) + take * unbiased);
    });
}

// mean and inv_std from the running statistics.
KERNEL batch_norm_running(const stat_t *__restrict__ running_mean,
                          const stat_t *__restrict__ running_var, acc_t *__restrict__ mean,
                          acc_t *__restrict__ inv_std, int C, double eps) {
    GRID_STRIDE(c, C) {
        mean[c] = acc_t(running_mean[c]);
        inv_std[c] = acc_t(1) / sqrt(acc_t(running_var[c]) + acc_t(eps));
    }
}

KERNEL __launch_bounds__(TEAM, TEAMS)
batch_norm_apply(const T *__restrict__ x, const T *__restrict__ gamma, const T *__restrict__ beta,
                 const acc_t *__restrict__ mean, const acc_t *__restrict__ inv_std,
                 T *__restrict__ y, int64 rows, int C, int relu) {
    const bool past = past_caches<T>(rows, C);
    const acc_t least = relu ? acc_t(0) : acc_t(-infinity());
    for_rows(rows, C, [=](auto at, const auto &rows) INLINE {
        const int c = at.first;
        const auto centre = at.load(mean + c), deviation = at.load(inv_std + c);
        const auto scale = at.load(gamma + c), shift = at.load(beta + c);
        rows.each([&](int64 r) INLINE {
            const int64 first = r * C + c;
            at.fetch(x + first);
            const auto value = at.load(x + first);
            return [&, first, value]() INLINE {
                at.write(y + first, past, [&](int v) {
                    // Centred before scaling: folding the mean into beta would cancel for large
                    // means.
                    const lanes_t centred = value[v] - centre[v];
                    const lanes_t result = centred * (scale[v] * deviation[v]) + shift[v];
                    return result < least ? least - lanes_t{} : result;
                });
            };
        });
    });
}

// Partial sums of dy and dy * xhat over each chunk; y is null without ReLU.
KERNEL __launch_bounds__(TEAM, TEAMS)
batch_norm_gradient_chunks(const T *__restrict__ dy, const T *__restrict__ x,
                           const T *__restrict__ y, const acc_t *__restrict__ mean,
                           const acc_t *__restrict__ inv_std, acc_t *__restrict__ sums,
                           acc_t *__restrict__ products, int64 rows, int C, int rows_per_chunk) {
    const int64 begin = (int64)blockIdx.x * rows_per_chunk;
    const int64 end = smaller(begin + rows_per_chunk, rows);
    for_chunk(begin, end, C, [&](auto at, const auto &rows) {
        GradientSums<decltype(at)> chunk(at, mean);
        rows.each([&](int64 r) INLINE {
            const int64 i = r * C + at.first;
            at.fetch(dy + i);
            at.fetch(x + i);
            if (y) at.fetch(y + i);
            const auto value = at.load(x + i);
            const auto gradient = masked(at, dy, y, i);
            return [&, value, gradient]() INLINE { chunk.add(gradient, value); };
        });
        chunk.store(rows, inv_std, sums, products, C);
    });
}

// dbeta and dgamma from their partial sums, in the type of sums and in that of the arrays.
KERNEL __launch_bounds__(TEAM, TEAMS)
batch_norm_gradient_sums(const acc_t *__restrict__ sums, const acc_t *__restrict__ products,
                         acc_t *__restrict__ sum, acc_t *__restrict__ product,
                         T *__restrict__ dbeta, T *__restrict__ dgamma, int chunks, int C) {
    const auto write = [](acc_t *wide, T *narrow) {
        return [=](auto at, const auto &total) {
            at.store(wide + at.first, total);
            at.store(narrow + at.first, total);
        };
    };
    sum_rows(sums, 0, chunks, C, write(sum, dbeta));
    sum_rows(products, 0, chunks, C, write(product, dgamma));
}

// dx from dbeta and dgamma; `batch` tells whether mean and inv_std depend on x.
KERNEL batch_norm_input_gradient(const T *__restrict__ dy, const T *__restrict__ x,
                                 const T *__restrict__ y, const T *__restrict__ gamma,
                                 const acc_t *__restrict__ mean, const acc_t *__restrict__ inv_std,
                                 const acc_t *__restrict__ sum, const acc_t *__restrict__ product,
                                 T *__restrict__ dx, int64 rows, int C, int batch) {
    const acc_t share = acc_t(1) / acc_t(rows);
    const bool past = past_caches<T>(rows, C);
    for_rows(rows, C, [=](auto at, const auto &rows) INLINE {
        const int c = at.first;
        const auto centre = at.load(mean + c), deviation = at.load(inv_std + c);
        const auto sums = at.load(sum + c), products = at.load(product + c);
        const auto scale = at.load(gamma + c);
        for (int64 r = rows.begin; r < rows.end; r += rows.step) {
            const int64 i = r * C + c;
            at.fetch(dy + i);
            at.fetch(x + i);
            if (y) at.fetch(y + i);
            const auto value = at.load(x + i);
            const auto gradient = masked(at, dy, y, i);
            at.write(dx + i, past, [&](int v) {
                const lanes_t scaled = (value[v] - centre[v]) * deviation[v];
                const lanes_t mean_part = (sums[v] + scaled * products[v]) * share;
                const lanes_t centred = batch ? gradient[v] - mean_part : gradient[v];
                return scale[v] * deviation[v] * centred;
            });
        }
    });
}
