// Loops over the channels of NHWC arrays: neighbours in memory, so neighbouring threads take
// neighbouring channels on `cuda` (width 1), and one thread takes a SIMD register of them on `cpu`
// (width 4 * CHANNELS, CHANNELS, half of it, then 1 for the rest). The body is a generic lambda
//
//   [=](int c, auto width) { constexpr int V = decltype(width)::value; ... }
//
// that does channels c to c + V - 1 in LANE_LOOPs, which the compiler turns into SIMD code. For a
// loop over pixels too it is returned by a lambda of the pixel, whose index arithmetic is then done
// once for all channels on `cpu`.
//
// for_images does the same for the pixels of images, in lanes: its body is a lambda of an image's
// row that returns one of the column that returns one of the first channel and a count of them.
#pragma once

#include "dialect.cuh"
#include "window.cuh"

template <int V> struct Width { static constexpr int value = V; };

#ifdef FULL_BLOCKS

// The block's threads share the channels.
template <class Body> __device__ void for_channels(int C, const Body &body) {
    BLOCK_STRIDE(c, C) body(c, Width<1>());
}

// The grid's threads share all (pixel, channel) pairs.
template <class Body>
__device__ void for_pixels_and_channels(int64 pixels, int C, const Body &body) {
    GRID_STRIDE(i, pixels * C) {
        const int64 pixel = i / C;
        body(pixel)(int(i - pixel * C), Width<1>());
    }
}

// body(pixel, place, c) for all pixels of images of height x width, and all channels in vectors.
template <class Body>
__device__ void for_places_and_vectors(int64 pixels, int height, int width, int C,
                                       const Body &body) {
    GRID_STRIDE(i, pixels * C) {
        const int64 pixel = i / C;
        body(pixel, place(pixel, height, width), int(i - pixel * C));
    }
}

// The grid's threads share all (row, column, channel) triples, the rows being those of all images.
template <class Body>
__device__ void for_images(int64 rows, int H, int W, int C, const Body &body) {
    GRID_STRIDE(i, rows * W * C) {
        const int64 pixel = i / C, row = pixel / W, n = row / H;
        body(n, int(row - n * H))(int(pixel - row * W))(int(i - pixel * C), 1);
    }
}

#else

constexpr int CHANNELS = 64 / sizeof(acc_t);  // a cache line of them

template <class Body> static inline void for_channels(int C, const Body &body) {
    int c = 0;
    for (; c + 4 * CHANNELS <= C; c += 4 * CHANNELS) body(c, Width<4 * CHANNELS>());
    for (; c + CHANNELS <= C; c += CHANNELS) body(c, Width<CHANNELS>());
    for (; c + CHANNELS / 2 <= C; c += CHANNELS / 2) body(c, Width<CHANNELS / 2>());
    for (; c < C; ++c) body(c, Width<1>());
}

template <class Body>
static inline void for_pixels_and_channels(int64 pixels, int C, const Body &body) {
    GRID_STRIDE(pixel, pixels) for_channels(C, body(pixel));
}

template <class Body>
static inline void for_places_and_vectors(int64 pixels, int height, int width, int C,
                                          const Body &body) {
    Place at = {-1, 0, 0};
    GRID_STRIDE(pixel, pixels) {
        if (at.n < 0) at = place(pixel, height, width);
        for (int c = 0; c < C; c += Simd<acc_t>::LANES) body(pixel, at, c);
        at.advance(height, width);
    }
}

template <class Body>
static inline void for_images(int64 rows, int H, int W, int C, const Body &body) {
    constexpr int LANES = Simd<acc_t>::LANES;
    GRID_STRIDE(row, rows) {
        auto columns = body(row / H, int(row % H));
        for (int column = 0; column < W; ++column) {
            const auto channels = columns(column);
            int c = 0;
            for (; c + LANES <= C; c += LANES) channels(c, LANES);
            if (c < C) channels(c, C - c);
        }
    }
}

#endif
