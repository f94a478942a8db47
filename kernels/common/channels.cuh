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
// for_images walks over the pixels of images, row by row, and their channels in SIMD registers:
//
//   for_images(N * H, H, W, C, [&](int64 n, int row, const auto &columns) {
//       columns([&](int column, const auto &channels) {
//           channels([&](auto at) { for (int v = 0; v < at.REGISTERS; ++v) ... at.load(p, v) ...
//           });
//       });
//   });
//
// where p is at channel at.first of a pixel; what depends on the row or the pixel alone is done
// once for all channels on `cpu`.
#pragma once

#include "dialect/dialect.cuh"
#include "common/window.cuh"

template <int V> struct Width { static constexpr int value = V; };

// SIMD registers of neighbouring channels, all of them full but the last.
template <int COUNT> struct Channels {
    using lanes_t = Simd<acc_t>::type;
    using index_t = Simd<acc_t>::index;
    static constexpr int REGISTERS = COUNT, LANES = Simd<acc_t>::LANES;
    int first, last;  // the first channel, and how many the last register has

    __device__ int count(int v) const { return v < REGISTERS - 1 ? LANES : last; }
    template <typename E> __device__ lanes_t load(const E *p, int v) const {
        return lanes_t(load_first(p + v * LANES, count(v)));
    }
    template <typename E> __device__ void store(E *p, int v, lanes_t value) const {
        store_first(p + v * LANES, value, count(v));
    }
    template <typename E> __device__ void write(E *p, int v, lanes_t value, bool past) const {
        write_first(p + v * LANES, value, count(v), past);
    }
    template <typename E>
    __device__ void fetch(const E *p, int v, int ahead = 8192 / int(sizeof(E))) const {
        fetch_ahead(p + v * LANES, 1, ahead);
    }
    template <typename Whole> __device__ index_t load_whole(const Whole *p, int v) const {
        return load_first_whole<acc_t>(p + v * LANES, count(v));
    }
    template <typename Whole> __device__ void store_whole(Whole *p, int v, index_t value) const {
        store_first_whole<acc_t>(p + v * LANES, value, count(v));
    }
};

// How far ahead a loop over windows asks for an image's pixels, in elements, given those from one
// row of windows to the next: by as many, for a window's rows are far apart and each must be there
// in time; but not less than a loop over neighbours, nor more than the caches hold.
__device__ inline int row_ahead(int64 row) {
    constexpr int64 LEAST = 8192 / sizeof(T), MOST = 65536 / sizeof(T);
    return int(larger(smaller(row, MOST), LEAST));
}

#ifdef __CUDACC__

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

// body(at) for all channels in registers, which the block's threads share.
template <class Body> __device__ void for_registers(int C, const Body &body) {
    BLOCK_STRIDE(c, C) body(Channels<1>{c, 1});
}

// body(row, at) for all rows, and all their channels in registers.
template <class Body> __device__ void for_rows(int64 rows, int C, const Body &body) {
    GRID_STRIDE(i, rows * C) {
        const int64 row = i / C;
        body(row, Channels<1>{int(i - row * C), 1});
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
        const auto columns = [&](const auto &of_column) {
            of_column(int(pixel - row * W), [&](const auto &of_channels) {
                of_channels(Channels<1>{int(i - pixel * C), 1});
            });
        };
        body(n, int(row - n * H), columns);
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

// C channels in registers, four at a time; what of_channels does is compiled for up to four.
struct InRegisters {
    static constexpr int LANES = Simd<acc_t>::LANES;
    int end, registers, last;  // where the rest begins, its registers, and channels of the last

    InRegisters(int C) : end(C - C % (4 * LANES)), registers(ceil_div(C - end, LANES)) {
        last = C - end - (registers - 1) * LANES;
    }
    template <class OfChannels> __forceinline__ void operator()(const OfChannels &of) const {
        for (int c = 0; c < end; c += 4 * LANES) of(Channels<4>{c, LANES});
        if (registers == 1) of(Channels<1>{end, last});
        if (registers == 2) of(Channels<2>{end, last});
        if (registers == 3) of(Channels<3>{end, last});
        if (registers == 4) of(Channels<4>{end, last});
    }
};

template <class Body> static __forceinline__ void for_registers(int C, const Body &body) {
    InRegisters channels(C);
    channels(body);
}

template <class Body> static __forceinline__ void for_rows(int64 rows, int C, const Body &body) {
    const InRegisters channels(C);
    GRID_STRIDE(row, rows) channels([&](auto at) { body(row, at); });
}

template <class Body>
static __forceinline__ void for_images(int64 rows, int H, int W, int C, const Body &body) {
    const InRegisters channels(C);
    const auto columns = [&](const auto &of_column) {
        for (int column = 0; column < W; ++column) of_column(column, channels);
    };
    GRID_STRIDE(row, rows) body(row / H, int(row % H), columns);
}

#endif
