// The geometry of a sliding window over an NHWC image, shared by convolution and pooling.
//
//   ih = oh * SH - PH + kh * DH        iw = ow * SW - PW + kw * DW
//
// PH and PW are the top and left padding; the bottom and right are implied by OH and OW. The host
// checks that one image, input or output, has fewer than 2^31 elements.
#pragma once

#include "dialect.cuh"

struct Window {
    int H, W, OH, OW, KH, KW, SH, SW, PH, PW, DH, DW;

    // The output row that input row h reaches through tap kh, or -1.
    __device__ int output_row(int h, int kh) const {
        const int reach = h + PH - kh * DH;
        return reach >= 0 && reach % SH == 0 && reach / SH < OH ? reach / SH : -1;
    }
    __device__ int output_column(int w, int kw) const {
        const int reach = w + PW - kw * DW;
        return reach >= 0 && reach % SW == 0 && reach / SW < OW ? reach / SW : -1;
    }
};

// The outputs first to last of one axis whose windows reach input i, give or take holes between
// dilated taps; tap() is the tap that output o does it with, or -1.
struct Cover {
    int first, last, reach, stride, dilation;

    __device__ Cover(int i, int outputs, int taps, int stride, int padding, int dilation)
        : reach(i + padding), stride(stride), dilation(dilation) {
        const int beyond = reach - (taps - 1) * dilation;
        first = beyond > 0 ? (beyond - 1) / stride + 1 : 0;
        last = smaller(reach / stride, outputs - 1);
    }
    __device__ int tap(int o) const {
        const int offset = reach - o * stride;
        if (dilation == 1) return offset;
        return offset % dilation ? -1 : offset / dilation;
    }
};
__device__ inline Cover cover_rows(const Window &g, int h) {
    return Cover(h, g.OH, g.KH, g.SH, g.PH, g.DH);
}
__device__ inline Cover cover_columns(const Window &g, int w) {
    return Cover(w, g.OW, g.KW, g.SW, g.PW, g.DW);
}

// A pixel's place in its image, and the image's in the batch.
struct Place {
    int64 n;
    int row, column;

    __device__ void advance(int height, int width) {
        if (++column < width) return;
        column = 0;
        if (++row == height) row = 0, ++n;
    }
};
__device__ inline Place place(int64 pixel, int height, int width) {
    const int64 n = pixel / (height * width);
    const int rest = int(pixel - n * height * width);
    return {n, rest / width, rest % width};
}
