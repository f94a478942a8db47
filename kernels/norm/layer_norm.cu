// Layer normalisation over the last axis, and its gradient.
//
//   y  = gamma * xhat + beta,  xhat = (x - mean) * inv_std,  inv_std = 1 / sqrt(var + eps)
//   dx = inv_std * (g - mean(g) - xhat * mean(g * xhat)),  g = gamma * dy
//   dgamma = sum over rows of dy * xhat,  dbeta = sum over rows of dy
//
// The variance is computed in a second pass, about the mean; the mean is computed relative to a
// pivot, the row's first value. So a mean of 1e4 with a deviation of 1 survives in float32.
//
// shapes   x, y, dy, dx (rows, C); gamma, beta (C); mean, inv_std (rows); partials (chunks, C)
// bytes    forward reads x and writes y; backward reads dy and x twice, once for the sums of
//          columns, and writes dx. Rows are read again from cache
// geometry rows: one warp per row, several warps per block; if by_warp is 0, one block per row;
//          chunks: one block per chunk and group of columns, see channels.cuh
#include "common/channels.cuh"
#include "common/rows.cuh"

// Neighbouring columns that a thread takes at once: on `cuda` 16 bytes, in one access if they are
// aligned, so that few accesses keep memory busy; on `cpu` a SIMD register.
#ifdef __CUDACC__
constexpr int COLUMNS = 16 / sizeof(T);
struct columns_t {
    acc_t value[COLUMNS];

    __device__ columns_t(acc_t all = 0) {
        LANE_LOOP(i, COLUMNS) value[i] = all;
    }
};
__device__ inline columns_t operator+(columns_t a, const columns_t &b) {
    LANE_LOOP(i, COLUMNS) a.value[i] += b.value[i];
    return a;
}
__device__ inline columns_t operator-(columns_t a, const columns_t &b) {
    LANE_LOOP(i, COLUMNS) a.value[i] -= b.value[i];
    return a;
}
__device__ inline columns_t operator*(columns_t a, const columns_t &b) {
    LANE_LOOP(i, COLUMNS) a.value[i] *= b.value[i];
    return a;
}
// The first `count` columns; the others are `otherwise`.
__device__ inline columns_t load(const T *p, int count, acc_t otherwise = 0) {
    columns_t row;
    if (Vector<T, COLUMNS>::fits(p, count))
        load_vector(row.value, p);
    else
        LANE_LOOP(i, COLUMNS) row.value[i] = i < count ? acc_t(p[i]) : otherwise;
    return row;
}
__device__ inline void write(T *p, const columns_t &row, int count, bool) {
    store_row(p, row.value, count);
}
template <class Threads> __device__ inline acc_t total(const columns_t &row) {
    acc_t sum = row.value[0];
    UNROLL(int i = 1; i < COLUMNS; ++i) sum += row.value[i];
    return Threads::reduce(sum, Sum());
}
#else
constexpr int COLUMNS = LANES;
using columns_t = lanes_t;
static inline columns_t load(const T *p, int count, acc_t otherwise = 0) {
    return load_first(p, count, otherwise);
}
static inline void write(T *p, columns_t row, int count, bool past) {
    write_first(p, row, count, past);
}
template <class Threads> static inline acc_t total(columns_t row) {
    return Threads::reduce(row, Sum());
}
#endif

// Calls body(c, count) for COLUMNS columns from c on at a time; `count` columns are left.
template <class Threads, class Body>
__device__ __forceinline__ void for_neighbours(int C, const Body &body) {
    for (int c = Threads::index() * COLUMNS; c < C; c += int(Threads::count()) * COLUMNS)
        body(c, C - c);
}

// Calls body(row, threads) for all rows.
template <class Body>
__device__ __forceinline__ void each_row(int64 rows, int by_warp, const Body &body) {
    if (by_warp) {
        const int warps = blockDim.x / WARP, warp = threadIdx.x / WARP;
        BLOCK_ROWS(i, (rows + warps - 1) / warps) {
            const int64 row = i * warps + warp;
            if (row < rows) body(row, OfWarp());
        }
    } else {
        BLOCK_ROWS(row, rows) body(row, OfBlock());
    }
}

KERNEL layer_norm_forward(const T *__restrict__ x, const T *__restrict__ gamma,
                          const T *__restrict__ beta, T *__restrict__ y, acc_t *__restrict__ means,
                          acc_t *__restrict__ inv_stds, int64 rows, int C, int by_warp,
                          double eps) {
    const acc_t share = acc_t(1) / acc_t(C);
    const bool past = past_caches<T>(rows, C);
    each_row(rows, by_warp, [=](int64 row, auto threads) {
        using Threads = decltype(threads);
        const T *p = x + row * C;
        const acc_t pivot = acc_t(p[0]);
        columns_t sums = {}, squares = {};
        for_neighbours<Threads>(C, [&](int c, int count) {
            fetch_ahead(p + c, 1, C);  // the next row, while this one is computed
            sums = sums + (load(p + c, count, pivot) - pivot);
        });
        const acc_t from_pivot = total<Threads>(sums) * share, mean = pivot + from_pivot;
        for_neighbours<Threads>(C, [&](int c, int count) {
            const columns_t deviation = load(p + c, count, mean) - mean;
            squares = squares + deviation * deviation;
        });
        const acc_t inv_std = acc_t(1) / sqrt(total<Threads>(squares) * share + acc_t(eps));
        for_neighbours<Threads>(C, [&](int c, int count) {
            // Not value - mean: a large pivot has rounded the mean.
            const columns_t centred = load(p + c, count) - pivot - from_pivot;
            const columns_t scaled = centred * inv_std * load(gamma + c, count);
            write(y + row * C + c, scaled + load(beta + c, count), count, past);
        });
        if (Threads::index() == 0) {
            means[row] = mean;
            inv_stds[row] = inv_std;
        }
    });
}

KERNEL layer_norm_input_gradient(const T *__restrict__ dy, const T *__restrict__ x,
                                 const T *__restrict__ gamma, const acc_t *__restrict__ means,
                                 const acc_t *__restrict__ inv_stds, T *__restrict__ dx, int64 rows,
                                 int C, int by_warp) {
    const acc_t share = acc_t(1) / acc_t(C);
    const bool past = past_caches<T>(rows, C);
    each_row(rows, by_warp, [=](int64 row, auto threads) {
        using Threads = decltype(threads);
        const int64 first = row * C;
        const acc_t mean = means[row], inv_std = inv_stds[row];
        columns_t sums = {}, products = {};
        for_neighbours<Threads>(C, [&](int c, int count) {
            fetch_ahead(dy + first + c, 1, C);
            fetch_ahead(x + first + c, 1, C);
            const columns_t g = load(dy + first + c, count) * load(gamma + c, count);
            sums = sums + g;
            products = products + g * (load(x + first + c, count, mean) - mean);
        });
        const acc_t sum = total<Threads>(sums) * share;
        const acc_t slope = total<Threads>(products) * share * inv_std * inv_std;
        for_neighbours<Threads>(C, [&](int c, int count) {
            const columns_t g = load(dy + first + c, count) * load(gamma + c, count);
            const columns_t centred = load(x + first + c, count, mean) - mean;
            write(dx + first + c, (g - sum - centred * slope) * inv_std, count, past);
        });
    });
}

// Partial sums of dy and dy * xhat over each chunk of rows.
KERNEL layer_norm_gradient_chunks(const T *__restrict__ dy, const T *__restrict__ x,
                                  const acc_t *__restrict__ means,
                                  const acc_t *__restrict__ inv_stds, acc_t *__restrict__ sums,
                                  acc_t *__restrict__ products, int64 rows, int C,
                                  int rows_per_chunk) {
    const int64 begin = (int64)blockIdx.x * rows_per_chunk;
    const int64 end = smaller(begin + rows_per_chunk, rows);
    for_chunk(begin, end, C, [&](auto at, const auto &chunk) {
        typename decltype(at)::Values sum = {}, product = {};
        UNROLL_ROWS(int64 r = chunk.begin; r < chunk.end; r += chunk.step) {
            const int64 i = r * C + at.first;
            at.fetch(dy + i);
            at.fetch(x + i);
            const acc_t mean = means[r], inv_std = inv_stds[r];
            const auto gradient = at.load(dy + i), value = at.load(x + i);
            UNROLL(int v = 0; v < at.REGISTERS; ++v) {
                const lanes_t g = gradient[v];
                sum[v] += g;
                product[v] += g * ((value[v] - mean) * inv_std);
            }
        }
        chunk.add(sum);
        chunk.add(product);
        if (!chunk.first) return;
        const int64 own = (int64)blockIdx.x * C + at.first;
        at.store(sums + own, sum);
        at.store(products + own, product);
    });
}
