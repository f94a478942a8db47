// Affine maps from output to input pixels, and what an image holds between its pixels.
#pragma once

#include "random.cuh"

// About the image's centre c, with an angle a, a zoom z and a shift s:
//
//   m (x, y, 1)^T = R(-a) / z * ((x, y) - c - s) + c
//
// rotate in degrees, shift in pixels, zoom a fraction: each drawn uniformly from [-value, value].
// The map is a function of seed, image and offset alone.
template <typename E, typename M>
__device__ inline void random_map(M *m, int H, int W, double rotate, double shift, double zoom,
                                  uint64 seed, uint64 image, uint64 offset) {
    const Random4 random = philox(seed, image, offset), more = philox(seed, image, ~offset);
    const E half_turns = E(rotate / 180) * (2 * random.uniform(0) - 1);
    const E scale = 1 / (1 + E(zoom) * (2 * random.uniform(1) - 1));
    const E shift_x = E(shift) * (2 * random.uniform(2) - 1);
    const E shift_y = E(shift) * (2 * more.uniform(0) - 1);
    const E cosine = cos_pi(half_turns) * scale, sine = sin_pi(half_turns) * scale;
    const E centre_x = E(W - 1) / 2, centre_y = E(H - 1) / 2;
    const E from_x = centre_x + shift_x, from_y = centre_y + shift_y;
    m[0] = M(cosine), m[1] = M(sine), m[2] = M(centre_x - cosine * from_x - sine * from_y);
    m[3] = M(-sine), m[4] = M(cosine), m[5] = M(centre_y + sine * from_x - cosine * from_y);
}

// A position in the input: its top left neighbour, and the weights of the right and lower ones.
template <typename E> struct Position {
    int left, top;
    E right_share, low_share;
};

template <typename E, typename M>
__device__ inline Position<E> mapped(const M *m, int output_x, int output_y, int H, int W) {
    const E x = E(output_x), y = E(output_y);
    const E u = E(m[0]) * x + E(m[1]) * y + E(m[2]);
    const E v = E(m[3]) * x + E(m[4]) * y + E(m[5]);
    // Far outside or NaN: no neighbour is in the image, and the conversion to int is not
    // defined. Negated so that NaN takes this way too.
    const bool near = u > -1 && u < W && v > -1 && v < H;
    const int left = near ? int(floor(u)) : -2, top = near ? int(floor(v)) : -2;
    return {left, top, near ? u - left : E(0), near ? v - top : E(0)};
}

template <typename P> struct Pixel {
    static __device__ P from(typename Accumulator<P>::type value) { return P(value); }
};
template <> struct Pixel<uint8> {  // to nearest; weights sum to 1, so only fill can leave [0, 255]
    static __device__ uint8 from(float value) {
        return uint8(smaller(larger(value + 0.5f, 0.0f), 255.0f));
    }
};

// Channel c of an image (H, W, C) there, interpolated bilinearly; `fill` outside of the image.
template <typename P, typename E>
__device__ inline P bilinear(const P *image, const Position<E> &at, int H, int W, int C, int c,
                             double fill) {
    using value_t = typename Accumulator<P>::type;  // positions may be taken in another precision
    value_t sum = 0;
    for (int j = 0; j < 4; ++j) {
        const int column = at.left + (j & 1), row = at.top + (j >> 1);
        const E share = (j & 1 ? at.right_share : E(1) - at.right_share) *
                        (j >> 1 ? at.low_share : E(1) - at.low_share);
        const bool inside = column >= 0 && column < W && row >= 0 && row < H;
        const int64 neighbour = ((int64)row * W + column) * C + c;
        sum += value_t(share) * (inside ? value_t(image[neighbour]) : value_t(fill));
    }
    return Pixel<P>::from(sum);
}
