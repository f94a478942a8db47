// Code shared by the gradients of batch normalisation alone and with a max-pool.
#pragma once

#include "common/sums.cuh"

// The gradient at dy + i, set to zero where the ReLU clipped (y <= 0); y is null without a ReLU.
template <class At>
__device__ __forceinline__ typename At::Values masked(At at, const T *dy, const T *y, int64 i) {
    typename At::Values gradient = at.load(dy + i);
    if (!y) return gradient;
    const auto value = at.load(y + i);
    UNROLL(int v = 0; v < At::REGISTERS; ++v) gradient[v] = value[v] <= 0 ? lanes_t{} : gradient[v];
    return gradient;
}

// The sums of a gradient g and of g * xhat over a chunk, with xhat = (x - mean) * inv_std.
template <class At> struct GradientSums {
    At at;
    typename At::Values mean, sum = {}, product = {};

    __device__ GradientSums(At at, const acc_t *mean) : at(at), mean(at.load(mean + at.first)) {}

    template <class X>
    __device__ __forceinline__ void add(const typename At::Values &g, const X &x) {
        UNROLL(int v = 0; v < At::REGISTERS; ++v) {
            sum[v] += g[v];
            product[v] += g[v] * (x[v] - mean[v]);
        }
    }
    template <class ChunkRows>
    __device__ __forceinline__ void store(const ChunkRows &rows, const acc_t *inv_std, acc_t *sums,
                                          acc_t *products, int C) {
        rows.add(sum);
        rows.add(product);
        if (!rows.first) return;
        const auto deviation = at.load(inv_std + at.first);
        UNROLL(int v = 0; v < At::REGISTERS; ++v) product[v] *= deviation[v];
        const int64 own = (int64)blockIdx.x * C + at.first;
        at.store(sums + own, sum);
        at.store(products + own, product);
    }
};
