// im2col and its adjoint col2im, the simple path beside the implicit GEMM; and copies of images
// with padding.
//
//   im2col  cols[(n, oh, ow), (kh, kw, c)] = x[n, oh*SH - PH + kh*DH, ow*SW - PW + kw*DW, c],
//           zero outside the image
//   col2im  x[n, h, w, c] = sum of cols over every place that im2col copies (n, h, w, c) to
//
// shapes   x (N, H, W, C), cols (N*OH*OW, KH*KW*C)
// bytes    KH*KW/(SH*SW) times those of x, plus x
// geometry any grid; a thread takes a vector of channels at a time (channels.cuh), on cuda of one
//          tap or pixel
#include "common/channels.cuh"

#ifdef __CUDACC__

// A thread copies the same channels of the same tap in every row.
KERNEL im2col_copy(const T *__restrict__ x, T *__restrict__ cols, Window g, int64 rows, int C) {
    using Unit = Vector<T, VECTOR>;
    const int length = g.KH * g.KW * C;
    for_rows(rows, length, [=](auto at, const auto &rows) {
        const int tap = at.first / C, kh = tap / g.KW;
        const int top = kh * g.DH - g.PH, left = (tap - kh * g.KW) * g.DW - g.PW;
        const Unit *from = reinterpret_cast<const Unit *>(x + at.first - tap * C);
        Unit *to = reinterpret_cast<Unit *>(cols + at.first);
        Walk out(rows.begin, rows.step, g.OH, g.OW);
        for (int64 row = rows.begin; row < rows.end; row += rows.step, out.advance()) {
            const int ih = out.at.row * g.SH + top, iw = out.at.column * g.SW + left;
            const bool inside = ih >= 0 && ih < g.H && iw >= 0 && iw < g.W;
            const int64 pixel = (out.at.n * g.H + ih) * g.W + iw;
            to[row * (length / VECTOR)] = inside ? from[pixel * (C / VECTOR)] : Unit{};
        }
    });
}

#else

KERNEL im2col_copy(const T *__restrict__ x, T *__restrict__ cols, Window g, int64 rows, int C) {
    const int taps = g.KH * g.KW;
    GRID_STRIDE(item, rows * taps) {
        const int64 row = item / taps;
        const int tap = int(item - row * taps);
        const Place out = place(row, g.OH, g.OW);
        const int ih = out.row * g.SH - g.PH + tap / g.KW * g.DH;
        const int iw = out.column * g.SW - g.PW + tap % g.KW * g.DW;
        const bool inside = ih >= 0 && ih < g.H && iw >= 0 && iw < g.W;
        const T *source = x + ((out.n * g.H + ih) * g.W + iw) * C;
        copy_between<1>(cols + item * C, source, 0, inside ? C : 0, C);
    }
}

#endif

KERNEL col2im_sum(const T *__restrict__ cols, T *__restrict__ x, Window g, int64 rows, int C) {
    const int taps = g.KH * g.KW;
    for_images(rows, g.H, g.W, C, [&](int64 n, int h, const auto &columns) {
        const Cover down(vertical(g), h);
        Cover across(horizontal(g));
        const int64 row = (n * g.H + h) * g.W;
        columns([&](int w, const auto &channels) {
            across.to(w);
            channels([&](auto at) {
                typename decltype(at)::Values sum = {};
                for (int oh = down.first; oh <= down.last; ++oh) {
                    const int kh = down.tap(oh);
                    if (kh < 0) continue;
                    for (int ow = across.first; ow <= across.last; ++ow) {
                        const int kw = across.tap(ow);
                        if (kw < 0) continue;
                        const int64 window = (n * g.OH + oh) * g.OW + ow;
                        const int64 tap = window * taps + kh * g.KW + kw;
                        const auto value = at.load(cols + tap * C + at.first);
                        UNROLL(int v = 0; v < at.REGISTERS; ++v) sum[v] += value[v];
                    }
                }
                at.store(x + (row + w) * C + at.first, sum);
            });
        });
    });
}

// Images x (N, H, W, C) with their padding: padded (N, rows, columns, C), zero outside x.
KERNEL pad_images(const T *__restrict__ x, T *__restrict__ padded, int64 N, int H, int W, int C,
                  int top, int left, int rows, int columns) {
    const int begin = smaller(larger(left, 0), columns);
    const int end = smaller(larger(left + W, begin), columns);
    GRID_STRIDE(row, N * rows) {
        const int64 n = row / rows;
        const int h = int(row - n * rows) - top;
        const T *source = x + (n * H + h) * W * C;
        copy_between<1>(padded + row * columns * C, source - left * C, begin * C,
                        (h >= 0 && h < H ? end : begin) * C, columns * C);
    }
}
