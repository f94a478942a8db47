// Sums over rows, of which a block computes one result.
#pragma once

#include "common/channels.cuh"

// Calls store(at, sum) for all channels, with the sums of x[r, c] over the rows begin to end - 1.
template <typename E, class Store>
__device__ __forceinline__ void sum_rows(const E *x, int64 begin, int64 end, int C,
                                         const Store &store) {
    for_chunk(begin, end, C, [&](auto at, const auto &rows) {
        typename decltype(at)::Values sum = {};
        UNROLL_ROWS(int64 r = rows.begin; r < rows.end; r += rows.step) {
            const E *row = x + r * C + at.first;
            at.fetch(row);
            const auto value = at.load(row);
            UNROLL(int v = 0; v < at.REGISTERS; ++v) sum[v] += value[v];
        }
        rows.add(sum);
        if (rows.first) store(at, sum);
    });
}
