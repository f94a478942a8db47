// The gradient of layer normalisation: of one row's input, and the sums over rows; for the kernels
// of layer_norm.cu and layer_norm_gradients.cu, whose maths they are.
#pragma once

#include "common/channels.cuh"
#include "common/rows.cuh"

constexpr int TURNS = 4;  // of a sum's registers on cpu

// Writes the gradient of a row of x, and calls also(span, dy, x - mean) for all of its spans.
template <class Threads, class Also>
__device__ __forceinline__ void input_gradient(const T *dy, const T *x, const T *gamma, acc_t mean,
                                               acc_t inv_std, T *dx, int C, bool past,
                                               const Also &also) {
    const acc_t share = acc_t(1) / acc_t(C);
    const Row<Threads> gradient(dy, C), value(x, C);
    Reduction<Sum, TURNS> sums, products;
    for_spans<Threads, TURNS>(C, [&](const Span &at) {
        gradient.fetch_next(at, C);
        value.fetch_next(at, C);
        const columns_t g = gradient(at) * load(gamma, at);
        sums.add(at, g);
        products.add(at, g * (value(at, mean) - mean));
    });
    const acc_t sum = reduce_columns<Threads>(sums) * share;
    const acc_t product = reduce_columns<Threads>(products) * share;
    const acc_t slope = product * inv_std * inv_std;
    for_spans<Threads>(C, [&](const Span &at) {
        const columns_t slopes = gradient(at), centred = value(at, mean) - mean;
        write(dx, at, (slopes * load(gamma, at) - sum - centred * slope) * inv_std, past);
        also(at, slopes, centred);
    });
}

// Writes the block's sums of dy and dy * xhat over the rows begin to end - 1.
__device__ __forceinline__ void column_sums(const T *dy, const T *x, const acc_t *means,
                                            const acc_t *inv_stds, acc_t *sums, acc_t *products,
                                            int64 begin, int64 end, int C) {
    for_chunk(begin, end, C, [&](auto at, const auto &chunk) {
        typename decltype(at)::Values sum = {}, product = {};
        chunk.each([&](int64 r) INLINE {
            const int64 i = r * C + at.first;
            at.fetch(dy + i);
            at.fetch(x + i);
            const acc_t mean = means[r], inv_std = inv_stds[r];
            const auto gradient = at.load(dy + i), value = at.load(x + i);
            return [&, mean, inv_std, gradient, value]() INLINE {
                UNROLL(int v = 0; v < at.REGISTERS; ++v) {
                    const lanes_t g = gradient[v];
                    sum[v] += g;
                    product[v] += g * ((value[v] - mean) * inv_std);
                }
            };
        });
        chunk.add(sum);
        chunk.add(product);
        if (!chunk.first) return;
        const int64 own = (int64)blockIdx.x * C + at.first;
        at.store(sums + own, sum);
        at.store(products + own, product);
    });
}

// The block's sums of dy and dy * xhat over rows whose gradients it computes.
#ifdef __CUDACC__
template <class Threads> struct GradientSums {  // taken while rows are in registers
    ColumnSums<Threads> sum, product;

    __device__ void add(const Span &at, const columns_t &dy, const columns_t &xhat) {
        sum.add(at, dy);
        product.add(at, dy * xhat);
    }
    __device__ void store(const T *, const T *, const acc_t *, const acc_t *, acc_t *sums,
                          acc_t *products, int64, int64, int C) const {
        sum.store(sums + (int64)blockIdx.x * C, C);
        product.store(products + (int64)blockIdx.x * C, C);
    }
};
#else
template <class> struct GradientSums {  // taken afterwards, one group of columns after the other
    void add(const Span &, columns_t, columns_t) {}
    void store(const T *dy, const T *x, const acc_t *means, const acc_t *inv_stds, acc_t *sums,
               acc_t *products, int64 begin, int64 end, int C) const {
        column_sums(dy, x, means, inv_stds, sums, products, begin, end, C);
    }
};
#endif
