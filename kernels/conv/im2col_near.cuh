// The loaders of im2col for near windows, of few pixels in images that are not huge; Im2col is the
// one for all others.
//
// A row knows where in memory its window begins, and whole numbers tell its elements apart. Along
// the outputs it knows which rows and columns of the window lie outside the image, too: so a copy
// takes three instructions, less than half of what it takes with Im2col. Along k it moves to its
// next window without branches.
#pragma once

#include "conv/im2col.cuh"

#ifdef __CUDACC__
#ifndef NEAR  // whether all windows are near: 1 or 0
#define NEAR 1
#endif

// Pixels that a near window may extend over, each way. im2col.py says which windows are near.
constexpr int NEAR_PIXELS = 15;

// Rows along the outputs.
template <class Order> struct NearOutputs {
    Im2col<Order> all;

    // The pixel under the first tap, which may be outside the image. Bit i is set if row i of the
    // window is outside the image, bit 16 + i if its column i is; bit 31 always.
    struct Row {
        const T *first;
        uint32 outside;
    };
    static constexpr uint32 ALWAYS = 1u << 31;
    __device__ Row row(int r) const {
        const Window &g = all.window;
        const Place at = all.order.place(r);
        const int h = at.row * g.SH - g.PH, w = at.column * g.SW - g.PW;
        return {all.x + ((at.n * g.H + h) * g.W + w) * all.C,
                outside(h, g.H) | outside(w, g.W) << 16 | ALWAYS};
    }
    // Of the pixels from `begin` on those that are not in [0, size).
    static __device__ uint32 outside(int begin, int size) {
        return below(-begin) | (below(NEAR_PIXELS) & ~below(size - begin));
    }
    static __device__ uint32 below(int bit) {
        return (1u << smaller(larger(bit, 0), NEAR_PIXELS)) - 1;
    }

    // A tap, by its distance from the first one, and a channel; the bits of the tap's row and
    // column; and how far that is in memory.
    struct Segment {
        int h, w, channel;
        uint32 bits;
        int apart;
    };
    __device__ Segment segment(int c) const {
        const auto from = all.segment(c);
        return complete({from.h, from.w, from.channel});
    }
    __device__ Segment complete(Segment segment) const {
        segment.bits = 1u << segment.h | 1u << 16 << segment.w;
        segment.apart = (segment.h * all.window.W + segment.w) * all.C + segment.channel;
        return segment;
    }
    __device__ void advance(Segment &segment, int n) const {
        all.advance_tap(segment, n);
        segment = complete(segment);
    }
    __device__ bool at(const Row &row, const Segment &segment, bool inside, const T *&from) const {
        from = row.first + segment.apart;
        return (row.outside & (inside ? segment.bits : ALWAYS)) == 0;
    }
};

// Rows along k.
struct NearDepth {
    Im2col<ByPixel> all;

    // The pixel under the first tap, which may be outside the image.
    struct Row {
        const T *first;
        int h, w;
    };
    __device__ Row row(int r) const {
        const Window &g = all.window;
        const Place at = all.order.place(r);
        const int h = at.row * g.SH - g.PH, w = at.column * g.SW - g.PW;
        return {all.x + ((at.n * g.H + h) * g.W + w) * all.C, h, w};
    }
    // A tap, by its distance from the first one, and how far a channel of it is in memory.
    struct Segment { int h, w, apart; };
    __device__ Segment segment(int c) const {
        const auto from = all.segment(c);
        return {from.h, from.w, int(from.apart)};
    }
    // So many rows and columns of images further, and how far that is in memory.
    struct Step { int h, w, apart; };
    __device__ Step step(int n) const {
        const Window &g = all.window;
        const Place by = all.order.place(n);
        const int h = by.row * g.SH, w = by.column * g.SW;
        return {h, w, ((int(by.n) * g.H + h) * g.W + w) * all.C};
    }
    __device__ void advance(Row &row, const Step &step) const {
        const Window &g = all.window;
        const int width = g.OW * g.SW, height = g.OH * g.SH;  // of all windows
        const int line = (g.SH * g.W - width) * all.C, image = (g.H - height) * g.W * all.C;
        row.first += step.apart, row.h += step.h, row.w += step.w;
        if (row.w >= width - g.PW) row.w -= width, row.h += g.SH, row.first += line;
        if (row.h >= height - g.PH) row.h -= height, row.first += image;
    }
    __device__ bool at(const Row &row, const Segment &segment, bool inside, const T *&from) const {
        const int h = row.h + segment.h, w = row.w + segment.w;
        from = row.first + segment.apart;
        return inside & (unsigned(h) < unsigned(all.window.H)) &
               (unsigned(w) < unsigned(all.window.W));
    }
};

// The loader for rows along the outputs, and the one for rows along k.
template <class Order> __device__ auto along_outputs(const Im2col<Order> &images) {
    if constexpr (NEAR)
        return NearOutputs<Order>{images};
    else
        return images;
}
__device__ inline auto along_k(const Im2col<ByPixel> &images) {
    if constexpr (NEAR)
        return NearDepth{images};
    else
        return images;
}
#else
static Im2col<ByPixel> along_k(const Im2col<ByPixel> &images) { return images; }
template <class Order> static Im2col<Order> along_outputs(const Im2col<Order> &images) {
    return images;
}
#endif
