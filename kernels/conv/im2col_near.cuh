// The loader of im2col for windows of few pixels, whose rows run along the outputs; Im2col is the
// one for all others, and for rows along k.
//
// A row knows where in memory its window begins, and which rows and columns of it lie outside the
// image: so a copy takes three instructions, less than half of what it takes with Im2col.
#pragma once

#include "conv/im2col.cuh"

#ifdef __CUDACC__
#ifndef NEAR  // whether all windows are near: 1 or 0
#define NEAR 1
#endif

// Pixels that a near window may extend over, each way. Its elements then are less than 2^31 from
// its first one. im2col.py says which windows are near.
constexpr int NEAR_PIXELS = 15;

template <class Order> struct NearIm2col {
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
        const Window &g = all.window;
        const int tap = c / all.channels, kh = tap / g.KW, kw = tap - kh * g.KW;
        return complete({kh * g.DH, kw * g.DW, c - tap * all.channels});
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

// The loader for rows along the outputs.
template <class Order> __device__ auto along_outputs(const Im2col<Order> &images) {
    if constexpr (NEAR)
        return NearIm2col<Order>{images};
    else
        return images;
}
#else
template <class Order> static Im2col<Order> along_outputs(const Im2col<Order> &images) {
    return images;
}
#endif
