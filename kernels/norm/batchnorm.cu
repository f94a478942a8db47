// Batch normalisation over all but the last axis, with an optional ReLU, and its gradient.
//
//   y  = gamma * xhat + beta,  xhat = (x - mean) * inv_std,  inv_std = 1 / sqrt(var + eps)
//   dx = gamma * inv_std * (dy - mean(dy) - xhat * mean(dy * xhat))      batch statistics
//   dx = gamma * inv_std * dy                                            running statistics
//   dgamma = sum(dy * xhat), dbeta = sum(dy); with ReLU, dy is dropped where y <= 0
//
// The variance is taken in one reading of x, or as a convolution wrote x: see moments.cuh.
//
// shapes   x, y, dy, dx (rows, C); gamma, beta, mean, inv_std (C); partials (chunks, C)
// bytes    forward reads x twice and writes y; backward reads dy and x twice and writes dx
// geometry statistics: a block a chunk, its threads share the channels; merge: a block a channel,
//          on cpu a vector of them, its threads share the chunks; the rest: any grid, a thread a
//          (row, channel), on cpu a vector of channels
#include "dialect/lanes.cuh"
#include "norm/moments.cuh"

#ifdef __CUDACC__
constexpr int MERGING = 256;  // threads of batch_norm_merge: one_block of reduce.py
#else
constexpr int MERGING = 1;
#endif

KERNEL batch_norm_chunks(const T *__restrict__ x, acc_t *__restrict__ means,
                         acc_t *__restrict__ squares, int *__restrict__ counts, int64 rows, int C,
                         int rows_per_chunk) {
    const int64 begin = (int64)blockIdx.x * rows_per_chunk;
    const int64 end = smaller(begin + rows_per_chunk, rows);
    for_channels(C, [&](int c, auto width) {
        const T *first = x + begin * C + c;
        Moments<decltype(width)::value> moments(first);
        moments.add_rows(first, C, end - begin);
        moments.store(means, squares, counts, blockIdx.x, C, c);
    });
}

// Merges the chunks, those of each thread and then two threads' at a time, and moves the running
// statistics, the variance by its unbiased estimate, for which batchnorm.py asks for two rows.
KERNEL batch_norm_merge(const acc_t *__restrict__ means, const acc_t *__restrict__ squares,
                        const int *__restrict__ counts, acc_t *__restrict__ mean,
                        acc_t *__restrict__ inv_std, T *__restrict__ running_mean,
                        T *__restrict__ running_var, int64 rows, int C, int chunks, double momentum,
                        double eps) {
    __shared__ acc_t others[MERGING][LANES], spreads[MERGING][LANES];
    __shared__ int64 counted[MERGING];
    const int c = blockIdx.x * LANES, used = C - c, thread = threadIdx.x;
    const lanes_t pivot = load_first(means + c, used);
    acc_t own[LANES], spread[LANES];
    store_lanes(own, pivot);
    Moments<LANES> merged(own);
    BLOCK_STRIDE(i, chunks) {
        store_lanes(own, load_first(means + (int64)i * C + c, used) - pivot);
        store_lanes(spread, lanes_t(load_first(squares + (int64)i * C + c, used)));
        merged.merge(counts[i], own, spread);
    }
    for (int apart = MERGING / 2; apart > 0; apart /= 2) {
        if (thread < 2 * apart) {
            LANE_LOOP(v, LANES) {
                others[thread][v] = merged.mean[v];
                spreads[thread][v] = merged.square[v];
            }
            counted[thread] = merged.count;
        }
        __syncthreads();
        const int other = thread + apart;
        if (thread < apart) merged.merge(counted[other], others[other], spreads[other]);
    }
    if (thread > 0) return;
    const acc_t keep = acc_t(1 - momentum), take = acc_t(momentum);
    FIRST_LANES(v, LANES, smaller(used, LANES)) {
        const acc_t centre = merged.pivot[v] + merged.mean[v], square = merged.square[v];
        const acc_t unbiased = square / acc_t(rows - 1);
        mean[c + v] = centre;
        inv_std[c + v] = acc_t(1) / sqrt(square / acc_t(rows) + acc_t(eps));
        running_mean[c + v] = T(keep * acc_t(running_mean[c + v]) + take * centre);
        running_var[c + v] = T(keep * acc_t(running_var[c + v]) + take * unbiased);
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
    const bool past = past_caches<T>(rows, C);
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
    const bool past = past_caches<T>(rows, C);
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
