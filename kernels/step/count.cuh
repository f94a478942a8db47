// What a training counts on the device, in a block of any size.
//
//   totals[0] += rows * loss,  totals[1] += rows whose largest output is the label's
//   counters[0] += 1,  counters[1] += rows,  counters[2] += 1
#pragma once

#include "dialect/lanes.cuh"

// Whether the largest of a row's outputs is the label's, which is a class.
__device__ inline bool is_hit(const T *y, int64 label, int classes) {
    bool hit = true;
    const acc_t best = acc_t(y[label]);
    // The first of equals is the largest, as in argmax; a NaN never is.
    for (int c = 0; c < classes; ++c) hit &= c < label ? acc_t(y[c]) < best : acc_t(y[c]) <= best;
    return hit;
}

// One thread adds a batch to what a training counts.
__device__ inline void count(double loss, double hits, int64 rows, double *totals,
                             int64 *counters) {
    totals[0] += loss * double(rows);
    totals[1] += hits;
    counters[0] += 1;
    counters[1] += rows;
    counters[2] += 1;
}

// The loss is the mean of row losses, but for those of rows with no class for a label.
__device__ inline void count_rows(const acc_t *losses, const T *outputs, const int64 *labels,
                                  double *totals, int64 *counters, int64 rows, int classes) {
    double sum = 0, counted = 0, hits = 0;
    BLOCK_STRIDE(row, rows) {
        const int64 label = labels[row];
        sum += losses[row];
        if (label < 0 || label >= classes) continue;
        counted += 1;
        hits += is_hit(outputs + (int64)row * classes, label, classes);
    }
    sum = block_reduce(sum, Sum());
    counted = block_reduce(counted, Sum());
    hits = block_reduce(hits, Sum());
    if (threadIdx.x == 0) count(sum / counted, hits, rows, totals, counters);
}
