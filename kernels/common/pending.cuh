// Gradients of which some are partial sums: who uses them first adds these up, in order, in place
// of a launch for each.
//
//   grad[begin + j] = the sum of parts[j], parts[stride + j], ... over `count` parts, for j < size
//
// for each segment (begin, size, count, stride) and its parts; the parts of no segment are null.
#pragma once

#include "dialect/dialect.cuh"

constexpr int SEGMENTS = 8;

// Element i of grad, stored there if it is a sum.
template <typename G>
__device__ inline G summed(G *grad, int64 i, const int *segments,
                           const acc_t *const (&parts)[SEGMENTS]) {
#ifdef __CUDACC__
    const acc_t *from = nullptr;
    int64 stride = 0;
    int count = 0;
    UNROLL(int s = 0; s < SEGMENTS; ++s) {
        if (!parts[s]) continue;
        const int *segment = segments + 4 * s;
        const int64 j = i - segment[0];
        if (j < 0 || j >= segment[1]) continue;
        from = parts[s] + j, count = segment[2], stride = segment[3];
    }
    if (!from) return grad[i];
    acc_t sum = 0;
#pragma unroll 8
    for (int part = 0; part < count; ++part) sum += from[part * stride];
    return grad[i] = G(sum);
#else  // gradients are whole there
    return grad[i];
#endif
}
