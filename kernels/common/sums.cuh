// Sums over rows, of which a block computes one result.
#pragma once

#include "common/channels.cuh"

// Rows that one register adds up before the sum goes to another: the rounding errors of many rows
// grow with this and with the number of such runs, not with the number of rows.
constexpr int ROWS_OF_RUN = 1024;

// Calls store(at, sum) for all channels, with the sums of x[r, c] over the rows begin to end - 1.
template <typename E, class Store>
__device__ __forceinline__ void sum_rows(const E *x, int64 begin, int64 end, int C,
                                         const Store &store) {
    for_chunk(begin, end, C, [&](auto at, const auto &rows) {
        typename decltype(at)::Values sum = {};
        auto run = rows;
        for (; run.begin < rows.end; run.begin = run.end) {
            run.end = smaller(run.begin + ROWS_OF_RUN * rows.step, rows.end);
            typename decltype(at)::Values of_run = {};
            run.each([&](int64 r) INLINE {
                const E *row = x + r * C + at.first;
                at.fetch(row);
                const auto value = at.load(row);
                return [&, value]() INLINE {
                    UNROLL(int v = 0; v < at.REGISTERS; ++v) of_run[v] += value[v];
                };
            });
            UNROLL(int v = 0; v < at.REGISTERS; ++v) sum[v] += of_run[v];
        }
        rows.add(sum);
        if (rows.first) store(at, sum);
    });
}
