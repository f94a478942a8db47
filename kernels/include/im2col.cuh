// Loaders that present a convolution's operands as matrices without writing them out.
//
//   im2col(x)   row (n, oh, ow), column (kh, kw, c): the pixel under tap (kh, kw), zero in padding;
//               also transposed
//   col2im(dy)  row (n, h, w),   column (kh, kw, f): the output that pixel (h, w) reached through
//               tap (kh, kw), zero where there is none; times the filters it is the input gradient
//
// One group's channels at a time. Rows number fewer than 2^31, checked on the host.
#pragma once

#include "dialect.cuh"
#include "window.cuh"

struct Im2col {
    const T *x;  // at the group's first channel
    Window window;
    int C, channels;  // of the image, of the group

    template <int STEP> __device__ void load(int row, int column, int count, acc_t *out) const {
        const Window &g = window;
        const int n = row / (g.OH * g.OW), pixel = row - n * g.OH * g.OW;
        const int oh = pixel / g.OW, ow = pixel - oh * g.OW;
        const T *image = x + (int64)n * g.H * g.W * C;
        // A run of columns contiguous in memory: a whole tap row where taps touch, else one tap.
        const bool touching = g.DW == 1 && channels == C;
        const int run = touching ? g.KW * C : channels, runs = touching ? 1 : g.KW;
        const int first = column / run;
        int kh = first / runs, kw = first - kh * runs, j = column - first * run;
        for (int done = 0; done < count; j = 0) {
            const int ih = oh * g.SH - g.PH + kh * g.DH, iw = ow * g.SW - g.PW + kw * g.DW;
            const int length = smaller(run - j, count - done);
            // Elements of the run before `begin` and from `end` on lie in the padding.
            const bool inside = ih >= 0 && ih < g.H;
            const int begin = smaller(larger((iw < 0 ? -iw * C : 0) - j, 0), length);
            const int end = inside ? larger(smaller((g.W - iw) * C - j, length), begin) : begin;
            const T *source = image + ((int64)ih * g.W + iw) * C + j;
            for (int i = 0; i < begin; ++i) out[(done + i) * STEP] = 0;
            for (int i = begin; i < end; ++i) out[(done + i) * STEP] = acc_t(source[i]);
            for (int i = end; i < length; ++i) out[(done + i) * STEP] = 0;
            done += length;
            if (++kw == runs) kw = 0, ++kh;
        }
    }
};

// im2col(x) of images of one channel, transposed: row (kh, kw), column (n, oh, ow). A run is a
// whole output row then, where im2col's own would be KW elements short.
struct Im2colByTap {
    const T *x;
    Window window;

    template <int STEP> __device__ void load(int row, int column, int count, acc_t *out) const {
        const Window &g = window;
        const int kh = row / g.KW, kw = row - kh * g.KW;
        const int line = column / g.OW;
        int n = line / g.OH, oh = line - n * g.OH, ow = column - line * g.OW;
        for (int done = 0; done < count; ow = 0) {
            const int length = smaller(g.OW - ow, count - done);
            const int ih = oh * g.SH - g.PH + kh * g.DH, iw = ow * g.SW - g.PW + kw * g.DW;
            const T *source = x + ((int64)n * g.H + ih) * g.W + iw;
            // Columns of the run before `begin` and from `end` on lie in the padding.
            const bool inside = ih >= 0 && ih < g.H;
            const int begin = smaller(iw < 0 ? ceil_div(-iw, g.SW) : 0, length);
            const int room = g.W - iw;  // pixels from the first column's to the image's end
            const int reached = room > 0 ? ceil_div(room, g.SW) : 0;
            const int end = inside ? larger(smaller(reached, length), begin) : begin;
            for (int i = 0; i < begin; ++i) out[(done + i) * STEP] = 0;
            if (g.SW == 1)  // contiguous, which the compiler must know to use SIMD
                for (int i = begin; i < end; ++i) out[(done + i) * STEP] = acc_t(source[i]);
            else
                for (int i = begin; i < end; ++i)
                    out[(done + i) * STEP] = acc_t(source[(int64)i * g.SW]);
            for (int i = end; i < length; ++i) out[(done + i) * STEP] = 0;
            done += length;
            if (++oh == g.OH) oh = 0, ++n;
        }
    }
};

struct Col2im {
    const T *dy;  // at the group's first filter
    Window window;
    int F, filters;  // of the output, of the group

    template <int STEP> __device__ void load(int row, int column, int count, acc_t *out) const {
        const Window &g = window;
        const int n = row / (g.H * g.W), pixel = row - n * g.H * g.W;
        const int h = pixel / g.W, w = pixel - h * g.W;
        const int tap = column / filters;
        int kh = tap / g.KW, kw = tap - kh * g.KW, f = column - tap * filters;
        for (int done = 0; done < count; f = 0) {
            const int oh = g.output_row(h, kh), ow = g.output_column(w, kw);
            const int length = smaller(filters - f, count - done);
            const T *source = dy + (((int64)n * g.OH + oh) * g.OW + ow) * F + f;
            const bool reached = oh >= 0 && ow >= 0;
            for (int i = 0; i < length; ++i)
                out[(done + i) * STEP] = reached ? acc_t(source[i]) : acc_t(0);
            done += length;
            if (++kw == g.KW) kw = 0, ++kh;
        }
    }
};

// The filters (F, KH, KW, channels) as a matrix with row (kh, kw, f) and column c.
struct FiltersByTap {
    const T *w;  // at the group's first filter
    int taps, filters, channels;

    template <int STEP> __device__ void load(int row, int column, int count, acc_t *out) const {
        const int tap = row / filters, f = row - tap * filters;
        const T *source = w + ((int64)f * taps + tap) * channels + column;
        for (int i = 0; i < count; ++i) out[i * STEP] = acc_t(source[i]);
    }
};
