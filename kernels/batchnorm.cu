// Batch normalisation over all but the last axis, with an optional ReLU, and its gradient.
//
//   y  = gamma * xhat + beta,  xhat = (x - mean) * inv_std,  inv_std = 1 / sqrt(var + eps)
//   dx = gamma * inv_std * (dy - mean(dy) - xhat * mean(dy * xhat))      batch statistics
//   dx = gamma * inv_std * dy                                            running statistics
//   dgamma = sum(dy * xhat), dbeta = sum(dy); with ReLU, dy is dropped where y <= 0
//
// The variance is taken in one reading of x: groups of rows about their own mean, merged in order
// to chunks and those to the whole by the update of Chan, Golub and LeVeque (1983), so a mean of
// 1e4 with a deviation of 1 survives in float32. Both count from a pivot, their first value, so
// that the many updates of a large mean round small numbers, and the mean itself once.
//
// shapes   x, y, dy, dx (rows, C); gamma, beta, mean, inv_std (C); partials (chunks, C)
// bytes    forward reads x twice and writes y; backward reads dy and x twice and writes dx
// geometry statistics: a block a chunk, its threads share the channels; merge: any grid, a thread a
//          channel; the rest: any grid, a thread a (row, channel), on cpu a vector of channels
#include "channels.cuh"

using lanes_t = Simd<acc_t>::type;

constexpr int GROUP = 8;  // rows that stay in the nearest cache until they are read again

KERNEL batch_norm_chunks(const T *__restrict__ x, acc_t *__restrict__ means,
                         acc_t *__restrict__ squares, int64 rows, int C, int rows_per_chunk) {
    const int64 begin = (int64)blockIdx.x * rows_per_chunk;
    const int64 end = smaller(begin + rows_per_chunk, rows);
    for_channels(C, [&](int c, auto width) {
        constexpr int V = decltype(width)::value;
        acc_t pivot[V], mean[V] = {}, square[V] = {};
        LANE_LOOP(v, V) pivot[v] = acc_t(x[begin * C + c + v]);
        for (int64 r = begin; r < end; r += GROUP) {
            const T *group = x + r * C + c;
            const int count = int(smaller(end - r, (int64)GROUP));
            acc_t own[V] = {}, spread[V] = {};  // the group's mean, and its sum of squares from it
            for (int i = 0; i < count; ++i) {
                fetch_ahead(group + (int64)i * C, V);
                LANE_LOOP(v, V) own[v] += acc_t(group[(int64)i * C + v]) - pivot[v];
            }
            LANE_LOOP(v, V) own[v] /= acc_t(count);
            for (int i = 0; i < count; ++i)
                LANE_LOOP(v, V) {
                    const acc_t deviation = acc_t(group[(int64)i * C + v]) - pivot[v] - own[v];
                    spread[v] += deviation * deviation;
                }
            const acc_t before = acc_t(r - begin), share = acc_t(count) / (before + acc_t(count));
            LANE_LOOP(v, V) {
                const acc_t delta = own[v] - mean[v];
                mean[v] += delta * share;
                square[v] += spread[v] + delta * delta * (before * share);
            }
        }
        LANE_LOOP(v, V) {
            means[(int64)blockIdx.x * C + c + v] = pivot[v] + mean[v];
            squares[(int64)blockIdx.x * C + c + v] = square[v];
        }
    });
}

// Merges the chunks and moves the running statistics, the variance by its unbiased estimate.
KERNEL batch_norm_merge(const acc_t *__restrict__ means, const acc_t *__restrict__ squares,
                        acc_t *__restrict__ mean, acc_t *__restrict__ inv_std,
                        T *__restrict__ running_mean, T *__restrict__ running_var, int64 rows,
                        int C, int rows_per_chunk, int chunks, double momentum, double eps) {
    GRID_STRIDE(c, C) {
        const acc_t pivot = means[c];
        acc_t total = 0, centre = 0, square = 0;
        for (int i = 0; i < chunks; ++i) {
            const int64 left = rows - (int64)i * rows_per_chunk;
            const acc_t count = acc_t(left < rows_per_chunk ? left : rows_per_chunk);
            const acc_t delta = means[(int64)i * C + c] - pivot - centre;
            total += count;
            centre += delta * (count / total);
            square += squares[(int64)i * C + c] + delta * delta * (count * (total - count) / total);
        }
        centre += pivot;
        const acc_t unbiased = square / acc_t(rows > 1 ? rows - 1 : 1);
        mean[c] = centre;
        inv_std[c] = acc_t(1) / sqrt(square / acc_t(rows) + acc_t(eps));
        const acc_t keep = acc_t(1 - momentum), take = acc_t(momentum);
        running_mean[c] = T(keep * acc_t(running_mean[c]) + take * centre);
        running_var[c] = T(keep * acc_t(running_var[c]) + take * unbiased);
    }
}

// The same pair from the running statistics.
KERNEL batch_norm_running(const T *__restrict__ running_mean, const T *__restrict__ running_var,
                          acc_t *__restrict__ mean, acc_t *__restrict__ inv_std, int C,
                          double eps) {
    GRID_STRIDE(c, C) {
        mean[c] = acc_t(running_mean[c]);
        inv_std[c] = acc_t(1) / sqrt(acc_t(running_var[c]) + acc_t(eps));
    }
}

KERNEL batch_norm_apply(const T *__restrict__ x, const T *__restrict__ gamma,
                        const T *__restrict__ beta, const acc_t *__restrict__ mean,
                        const acc_t *__restrict__ inv_std, T *__restrict__ y, int64 rows, int C,
                        int relu) {
    const bool past = past_caches<T>(rows * C);
    for_rows(rows, C, [=](int64 row, auto at) {
        const int64 first = row * C + at.first;
        UNROLL for (int v = 0; v < at.REGISTERS; ++v) {
            at.fetch(x + first, v);
            // Centred before scaling: folding the mean into beta would cancel for large means.
            const lanes_t centred = at.load(x + first, v) - at.load(mean + at.first, v);
            const lanes_t scale = at.load(gamma + at.first, v) * at.load(inv_std + at.first, v);
            const lanes_t value = centred * scale + at.load(beta + at.first, v);
            at.write(y + first, v, relu ? (value < 0 ? lanes_t{} : value) : value, past);
        }
    });
}

// Partial sums of dy and dy * xhat over each chunk; y is null without ReLU.
KERNEL batch_norm_gradient_chunks(const T *__restrict__ dy, const T *__restrict__ x,
                                  const T *__restrict__ y, const acc_t *__restrict__ mean,
                                  const acc_t *__restrict__ inv_std, acc_t *__restrict__ sums,
                                  acc_t *__restrict__ products, int64 rows, int C,
                                  int rows_per_chunk) {
    const int64 begin = (int64)blockIdx.x * rows_per_chunk;
    const int64 end = smaller(begin + rows_per_chunk, rows);
    for_channels(C, [&](int c, auto width) {
        constexpr int V = decltype(width)::value;
        acc_t sum[V] = {}, product[V] = {};
        for (int64 r = begin; r < end; ++r) {
            fetch_ahead(dy + r * C + c, V);
            fetch_ahead(x + r * C + c, V);
            if (y) fetch_ahead(y + r * C + c, V);
            LANE_LOOP(v, V) {
                const int64 i = r * C + c + v;
                const acc_t masked = y && acc_t(y[i]) <= 0 ? acc_t(0) : acc_t(dy[i]);
                sum[v] += masked;
                product[v] += masked * (acc_t(x[i]) - mean[c + v]);
            }
        }
        LANE_LOOP(v, V) {
            sums[(int64)blockIdx.x * C + c + v] = sum[v];
            products[(int64)blockIdx.x * C + c + v] = product[v] * inv_std[c + v];
        }
    });
}

// dx from the summed dbeta and dgamma; `batch` says that mean and inv_std depend on x.
KERNEL batch_norm_input_gradient(const T *__restrict__ dy, const T *__restrict__ x,
                                 const T *__restrict__ y, const T *__restrict__ gamma,
                                 const acc_t *__restrict__ mean, const acc_t *__restrict__ inv_std,
                                 const acc_t *__restrict__ sum, const acc_t *__restrict__ product,
                                 T *__restrict__ dx, int64 rows, int C, int batch) {
    const acc_t share = acc_t(1) / acc_t(rows);
    const bool past = past_caches<T>(rows * C);
    for_rows(rows, C, [=](int64 row, auto at) {
        const int64 first = row * C + at.first;
        UNROLL for (int v = 0; v < at.REGISTERS; ++v) {
            at.fetch(dy + first, v);
            at.fetch(x + first, v);
            const lanes_t gradient = at.load(dy + first, v);
            lanes_t masked = gradient;
            if (y) {
                at.fetch(y + first, v);
                masked = at.load(y + first, v) <= 0 ? lanes_t{} : gradient;
            }
            const lanes_t deviation = at.load(inv_std + at.first, v);
            const lanes_t scaled =
                (at.load(x + first, v) - at.load(mean + at.first, v)) * deviation;
            const lanes_t sums =
                at.load(sum + at.first, v) + scaled * at.load(product + at.first, v);
            const lanes_t centred = batch ? masked - sums * share : masked;
            at.write(dx + first, v, at.load(gamma + at.first, v) * deviation * centred, past);
        }
    });
}
