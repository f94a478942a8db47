// Affine maps from output to input pixels, and bilinear interpolation between input pixels.
#pragma once

#include "images/random.cuh"

// About the image's centre c, with an angle a, a zoom z and a shift s:
//
//   m (x, y, 1)^T = R(-a) / z * ((x, y) - c - s) + c
//
// rotate in degrees, shift in pixels, zoom a fraction: each is drawn uniformly from [-value,
// value]. The map depends on seed, image and offset alone, bit by bit: fma() is written out, since
// compilers might fuse a product and a sum in one kernel and not in another.
template <typename E, typename M>
__device__ inline void random_map(M *m, int H, int W, double rotate, double shift, double zoom,
                                  uint64 seed, uint64 image, uint64 offset) {
    const Random4 random = philox(seed, image, offset), more = philox(seed, image, ~offset);
    const E half_turns = E(rotate / 180) * (2 * random.uniform(0) - 1);
    const E scale = 1 / fma(E(zoom), E(2 * random.uniform(1) - 1), E(1));
    const E cosine = cos_pi(half_turns) * scale, sine = sin_pi(half_turns) * scale;
    const E centre_x = E(W - 1) / 2, centre_y = E(H - 1) / 2;
    const E from_x = fma(E(shift), E(2 * random.uniform(2) - 1), centre_x);
    const E from_y = fma(E(shift), E(2 * more.uniform(0) - 1), centre_y);
    m[0] = M(cosine), m[1] = M(sine), m[2] = M(fma(-sine, from_y, fma(-cosine, from_x, centre_x)));
    m[3] = M(-sine), m[4] = M(cosine), m[5] = M(fma(-cosine, from_y, fma(sine, from_x, centre_y)));
}

template <typename P> struct Pixel {
    static __device__ P from(typename Accumulator<P>::type value) { return P(value); }
};
template <> struct Pixel<uint8> {  // rounded; weights sum to 1, so only `fill` can leave [0, 255]
    static __device__ uint8 from(float value) {
        return uint8(smaller(larger(value + 0.5f, 0.0f), 255.0f));
    }
};

// An image (H, W, C) in global memory: its values, and `fill` outside of it.
template <typename P> struct Image {
    using value_t = typename Accumulator<P>::type;
    const P *pixels;
    int H, W, C;
    value_t fill;

    __device__ __forceinline__ value_t operator()(int row, int column, int c) const {
        const bool inside = (column >= 0) & (column < W) & (row >= 0) & (row < H);
        // Always read something: without a branch, lanes stay together.
        const value_t value = value_t(pixels[inside ? (row * W + column) * C + c : 0]);
        return inside ? value : fill;
    }
};

// A copy of the image in a frame of `fill`, rows and columns -2 to H and W, so that no neighbour of
// a position needs a test and each pixel is read once. The block's threads make it, in shared
// memory for (H + 3) * (W + 3) * C values, which the host provides.
template <typename P> struct Framed {
    using value_t = typename Accumulator<P>::type;
    static constexpr int MARGIN = 2;
    value_t *values;
    int pitch, C;

    __device__ Framed(value_t *values, const Image<P> &image)
        : values(values), pitch(image.W + MARGIN + 1), C(image.C) {
        const int length = image.W * C, size = (image.H + MARGIN + 1) * pitch * C;
        make(image, length, size);
    }
#ifdef __CUDACC__
    __device__ void make(const Image<P> &image, int length, int size) {
        BLOCK_STRIDE(i, size) {
            const int line = i / (pitch * C), row = line - MARGIN;
            const int column = i - line * pitch * C - MARGIN * C;
            const bool inside = row >= 0 && row < image.H && column >= 0 && column < length;
            values[i] = inside ? value_t(image.pixels[row * length + column]) : image.fill;
        }
        __syncthreads();
    }
#else
    void make(const Image<P> &image, int length, int size) {
        for (int i = 0; i < size; ++i) values[i] = image.fill;
        for (int row = 0; row < image.H; ++row) {
            value_t *to = values + ((row + MARGIN) * pitch + MARGIN) * C;
            for (int i = 0; i < length; ++i) to[i] = value_t(image.pixels[row * length + i]);
        }
    }
#endif
    __device__ __forceinline__ value_t operator()(int row, int column, int c) const {
        return values[((row + MARGIN) * pitch + column + MARGIN) * C + c];
    }
};

// Computes output pixels (x, y) to (x + LANES - 1, y) of an image (H, W, C): bilinear interpolation
// between the pixels at(row, column, c) at (u, v)^T = m (x, y, 1)^T. Calls store(c, values) for
// each channel; values past the end of the row are undefined.
template <typename E, int LANES, typename P, typename M, class At, class Store>
__device__ __forceinline__ void warp_pixels(const At &at, const M *m, int x, int y, int H, int W,
                                            int C, const Store &store) {
    using value_t = typename Accumulator<P>::type;  // positions may have another precision
    int left[LANES], top[LANES];                    // of the top left neighbour
    value_t share[4][LANES];
    LANE_LOOP(l, LANES) {
        const E u = E(m[0]) * E(x + l) + (E(m[1]) * E(y) + E(m[2]));
        const E v = E(m[3]) * E(x + l) + (E(m[4]) * E(y) + E(m[5]));
        // Far outside, or NaN (for which `near` is false, too): no neighbour is in the image, and
        // the conversion to int is undefined.
        const bool near = (u > -1) & (u < W) & (v > -1) & (v < H);
        const E column = near ? floor(u) : E(-2), row = near ? floor(v) : E(-2);
        left[l] = int(column), top[l] = int(row);
        const E right = near ? u - column : E(0), low = near ? v - row : E(0);
        share[0][l] = value_t((1 - right) * (1 - low)), share[1][l] = value_t(right * (1 - low));
        share[2][l] = value_t((1 - right) * low), share[3][l] = value_t(right * low);
    }
    for (int c = 0; c < C; ++c) {
        value_t sum[LANES] = {};
        UNROLL(int j = 0; j < 4; ++j)
            LANE_LOOP(l, LANES) sum[l] += share[j][l] * at(top[l] + (j >> 1), left[l] + (j & 1), c);
        P values[LANES];
        LANE_LOOP(l, LANES) values[l] = Pixel<P>::from(sum[l]);
        store(c, values);
    }
}

// Calls store(x, y, c, values) for all pixels of an image; blocks along y and their threads share
// its rows. The image is framed in `memory`, unless that is null.
template <typename E, int LANES, typename P, typename M, class Store>
__device__ __forceinline__ void warp_image(const Image<P> &image,
                                           typename Accumulator<P>::type *memory, const M *m,
                                           const Store &store) {
    const int H = image.H, W = image.W, C = image.C;
    const auto warp = [&](const auto &at) {
        const int parts = ceil_div(W, LANES);  // of a row
        const int begin = int((int64)H * blockIdx.y / gridDim.y);
        const int end = int((int64)H * (blockIdx.y + 1) / gridDim.y);
        BLOCK_STRIDE(part, (end - begin) * parts) {
            const int row = part / parts, y = begin + row, x = (part - row * parts) * LANES;
            const auto take = [&](int c, const P(&values)[LANES]) { store(x, y, c, values); };
            warp_pixels<E, LANES, P>(at, m, x, y, H, W, C, take);
        }
    };
    if (memory) return warp(Framed<P>(memory, image));
    warp(image);
}
