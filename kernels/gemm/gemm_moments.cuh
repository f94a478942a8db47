// The moments of the values that a block of the GEMM stores; columns are channels.
//
//   BlockMoments moments{...};
//   moments.finish(gemm<...>(..., BiasRelu<BlockMoments::Taker>{..., {&moments}}));
//
//   cuda   after the product, from results that are still in cache: `parts` chunks of the block's
//          rows, which the threads share
//   cpu    from micro-tiles in registers: the block's rows are one chunk
#pragma once

#include "gemm/gemm.cuh"
#include "norm/moments.cuh"

struct BlockMoments {
    acc_t *means, *squares;  // null if no moments are wanted
    int *counts;
    const T *y;  // results, C channels
    int C, parts;

#ifdef __CUDACC__
    struct Taker { BlockMoments *moments; };  // takes nothing: finish() reads y

    __device__ void finish(const Block &block, int first) {
        if (!means) return;
        const int begin = first + block.n0, end = first + block.n1;
        block_moments(y, C, block.m0, block.m1, begin, end, parts, means, squares, counts);
    }
#else
    static constexpr int REGISTERS = BN / LANES;
    Moments<LANES> group[REGISTERS];

    // Receives one register of columns of a micro-tile.
    struct Taker {
        BlockMoments *moments;
        void operator()(int n, const lanes_t (&value)[TM], int rows) const {
            if (moments->means) moments->take(n, value, rows);
        }
    };

    void take(int n, const lanes_t (&value)[TM], int rows) {
        Moments<LANES> &own = group[n / LANES % REGISTERS];
        if (own.count == 0) store_lanes(own.pivot, value[0]);
        const lanes_t pivot = load_lanes(own.pivot);
        const acc_t share = acc_t(1) / acc_t(rows);
        lanes_t mean, square;
        const auto both = [&](auto whole) {
            const auto sum = [&](const auto &of) {
                lanes_t sums[2] = {};  // two independent sums hide the latency of additions
                UNROLL(int i = 0; i < TM; ++i) {
                    if (decltype(whole)::value || i < rows) sums[i % 2] += of(value[i] - pivot);
                }
                return sums[0] + sums[1];
            };
            mean = sum([=](lanes_t d) { return d * share; });
            square = sum([&](lanes_t d) { return (d - mean) * (d - mean); });
        };
        if (rows == TM)
            both(Number<1>());
        else
            both(Number<0>());
        acc_t means[LANES], squares[LANES];
        store_lanes(means, mean);
        store_lanes(squares, square);
        own.merge(rows, means, squares);
    }

    void finish(const Block &block, int first) {
        for (int n = block.n0; means && n < block.n1; n += LANES)
            group[n / LANES % REGISTERS].store(means, squares, counts, blockIdx.x, C, first + n,
                                               smaller(LANES, block.n1 - n));
    }
#endif
};
