// The transforms of winograd.cu along one axis: each turns FROM numbers into TO numbers.
#pragma once

#include "dialect/lanes.cuh"

constexpr int TILE = 4, SIDE = 6;  // outputs and points of a tile along an axis

// Powers of a and b, and the other constants of the matrices.
constexpr acc_t A1 = 0.75, A2 = A1 * A1, A3 = A1 * A2, B1 = 1.5, B2 = B1 * B1, B3 = B1 * B2;
constexpr acc_t SUM = A2 + B2, Q = A2 * B2;
constexpr acc_t KA = 1 / (2 * A2 * (A2 - B2)), KB = 1 / (2 * B2 * (B2 - A2));

// B^T: of pixels.
struct OfPixels {
    static constexpr int FROM = 6, TO = 6;
    __device__ static void apply(lanes_t (&p)[SIDE]) {
        const lanes_t zero = p[0] * Q - p[2] * SUM + p[4];
        const lanes_t infinity = p[1] * Q - p[3] * SUM + p[5];
        const lanes_t even_a = p[4] - p[2] * B2, odd_a = p[3] - p[1] * B2;
        const lanes_t even_b = p[4] - p[2] * A2, odd_b = p[3] - p[1] * A2;
        p[0] = zero, p[5] = infinity;
        p[1] = even_a + odd_a * A1, p[2] = even_a - odd_a * A1;
        p[3] = even_b + odd_b * B1, p[4] = even_b - odd_b * B1;
    }
};
// G: of taps.
struct OfTaps {
    static constexpr int FROM = 3, TO = 6;
    __device__ static void apply(lanes_t (&p)[SIDE]) {
        const lanes_t even_a = (p[0] + p[2] * A2) * KA, odd_a = p[1] * (A1 * KA);
        const lanes_t even_b = (p[0] + p[2] * B2) * KB, odd_b = p[1] * (B1 * KB);
        p[0] = p[0] * (1 / Q), p[5] = p[2];
        p[1] = even_a + odd_a, p[2] = even_a - odd_a;
        p[3] = even_b + odd_b, p[4] = even_b - odd_b;
    }
};
// A^T: to outputs.
struct ToOutputs {
    static constexpr int FROM = 6, TO = 4;
    __device__ static void apply(lanes_t (&p)[SIDE]) {
        const lanes_t even_a = p[1] + p[2], odd_a = p[1] - p[2];
        const lanes_t even_b = p[3] + p[4], odd_b = p[3] - p[4];
        p[0] = p[0] + even_a + even_b;
        p[1] = odd_a * A1 + odd_b * B1;
        p[2] = even_a * A2 + even_b * B2;
        p[3] = p[5] + odd_a * A3 + odd_b * B3;
    }
};
// A: of outputs' gradients.
struct OfGradients {
    static constexpr int FROM = 4, TO = 6;
    __device__ static void apply(lanes_t (&p)[SIDE]) {
        const lanes_t even_a = p[0] + p[2] * A2, odd_a = p[1] + p[3] * A2;
        const lanes_t even_b = p[0] + p[2] * B2, odd_b = p[1] + p[3] * B2;
        p[5] = p[3];
        p[1] = even_a + odd_a * A1, p[2] = even_a - odd_a * A1;
        p[3] = even_b + odd_b * B1, p[4] = even_b - odd_b * B1;
    }
};
// G^T: to taps' gradients.
struct ToTaps {
    static constexpr int FROM = 6, TO = 3;
    __device__ static void apply(lanes_t (&p)[SIDE]) {
        const lanes_t even_a = (p[1] + p[2]) * KA, odd_a = (p[1] - p[2]) * (A1 * KA);
        const lanes_t even_b = (p[3] + p[4]) * KB, odd_b = (p[3] - p[4]) * (B1 * KB);
        p[0] = p[0] * (1 / Q) + even_a + even_b;
        p[1] = odd_a + odd_b;
        p[2] = p[5] + even_a * A2 + even_b * B2;
    }
};

// Transforms the values get(i, j) along both axes, columns first, and calls put(i, j, value).
template <class Axis, class Get, class Put>
__device__ __forceinline__ void along_both(const Get &get, const Put &put) {
    lanes_t p[Axis::TO][Axis::FROM];
    UNROLL(int j = 0; j < Axis::FROM; ++j) {
        lanes_t column[SIDE];
        UNROLL(int i = 0; i < Axis::FROM; ++i) column[i] = get(i, j);
        Axis::apply(column);
        UNROLL(int i = 0; i < Axis::TO; ++i) p[i][j] = column[i];
    }
    UNROLL(int i = 0; i < Axis::TO; ++i) {
        lanes_t row[SIDE];
        UNROLL(int j = 0; j < Axis::FROM; ++j) row[j] = p[i][j];
        Axis::apply(row);
        UNROLL(int j = 0; j < Axis::TO; ++j) put(i, j, row[j]);
    }
}
