// The geometry of a sliding window over an NHWC image, shared by convolution and pooling.
//
//   ih = oh * SH - PH + kh * DH        iw = ow * SW - PW + kw * DW
//
// PH and PW are the top and left padding; the bottom and right are implied by OH and OW. The host
// checks that one image, input or output, has fewer than 2^31 elements.
#pragma once

#include "common/divisor.cuh"

struct Window { int H, W, OH, OW, KH, KW, SH, SW, PH, PW, DH, DW; };

// One axis of a window, over `inputs` pixels.
struct Axis {
    int inputs, outputs, taps, stride, padding, dilation;

    // The first pixel of output o's window, which may be in the padding, and the distance to the
    // last.
    __device__ int begin(int o) const { return o * stride - padding; }
    __device__ int reach() const { return (taps - 1) * dilation; }
};
__device__ inline Axis vertical(const Window &g) { return {g.H, g.OH, g.KH, g.SH, g.PH, g.DH}; }
__device__ inline Axis horizontal(const Window &g) { return {g.W, g.OW, g.KW, g.SW, g.PW, g.DW}; }

// The taps [first, end) of output o whose pixels are in [low, high); both are 0 if there are none.
struct Taps {
    int first, end;

    __device__ Taps(const Axis &a, int o, int low, int high) : first(0), end(a.taps) {
        const int begin = a.begin(o);
        if (begin >= low && begin + a.reach() < high) return;  // the common case, without division
        if (begin < low) first = (low - begin - 1) / a.dilation + 1;
        end = begin < high ? smaller(a.taps, (high - 1 - begin) / a.dilation + 1) : 0;
        if (first >= end) first = end = 0;
    }
    __device__ Taps(const Axis &a, int o) : Taps(a, o, 0, a.inputs) {}
    __device__ explicit Taps(int end) : first(0), end(end) {}
    __device__ int count() const { return end - first; }
    __device__ bool has(int tap) const { return first <= tap && tap < end; }
};

// The outputs, first to last, whose windows extend over input i. tap() is the tap of output o that
// reads i, or -1 if i is between dilated taps.
struct Cover {
    Axis a;
    int first, last, reach;

    __device__ Cover(const Axis &a) : a(a), reach(-1) {}
    __device__ Cover(const Axis &a, int i) : Cover(a) { to(i); }

    __device__ void to(int i) {
        const bool next = reach >= 0 && i + a.padding == reach + 1;
        reach = i + a.padding;
        const int beyond = reach - a.reach();
        if (next) {  // the next input: without division
            first += (int64)first * a.stride < beyond;
            last += last + 1 < a.outputs && (last + 1) * a.stride <= reach;
        } else {
            first = beyond > 0 ? (beyond - 1) / a.stride + 1 : 0;
            last = smaller(reach / a.stride, a.outputs - 1);
        }
    }
    __device__ int tap(int o) const {
        const int offset = reach - o * a.stride;
        if (a.dilation == 1) return offset;
        return offset % a.dilation ? -1 : offset / a.dilation;
    }
};

// A pixel's image, row and column.
struct Place {
    int64 n;
    int row, column;

    __device__ void advance(int height, int width) {
        if (++column < width) return;
        column = 0;
        if (++row == height) row = 0, ++n;
    }
};
// The place of pixel number `pixel`; an int if that is large enough, since its division is faster.
template <typename Whole> __device__ inline Place place(Whole pixel, int height, int width) {
    const Whole n = pixel / (height * width);
    const int rest = int(pixel - n * height * width);
    return {n, rest / width, rest % width};
}

// The same of many pixels.
struct PlacesByNumber {
    Divisor image, line;

    __device__ PlacesByNumber(int height, int width) : image(height * width), line(width) {}
    __device__ Place at(int pixel) const {
        Place place;
        int rest;
        place.n = image.divide(pixel, rest);
        place.row = line.divide(rest, place.column);
        return place;
    }
};

#ifdef __CUDACC__
// Every `apart`-th pixel from a first one on. Only the constructor divides.
struct Walk {
    Place at, step;
    int height, width;

    template <typename Whole>
    __device__ Walk(Whole pixel, int apart, int height, int width)
        : at(place(pixel, height, width)), step(place(apart, height, width)), height(height),
          width(width) {}
    __device__ __forceinline__ void advance() {
        at.column += step.column;
        const bool next = at.column >= width;
        at.column -= next ? width : 0;
        at.row += step.row + next;
        const bool image = at.row >= height;
        at.row -= image ? height : 0;
        at.n += step.n + image;
    }
};
#else
struct Walk {
    Place at;
    int height, width;

    Walk(int64 pixel, int, int height, int width)
        : at(place(pixel, height, width)), height(height), width(width) {}
    void advance() { at.advance(height, width); }
};
#endif
