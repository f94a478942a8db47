// im2col and its adjoint col2im, written out: the simple path beside the implicit GEMM; and
// padding.
//
//   im2col  cols[(n, oh, ow), (kh, kw, c)] = x[n, oh*SH - PH + kh*DH, ow*SW - PW + kw*DW, c],
//           zero outside the image
//   col2im  x[n, h, w, c] = sum of cols over every place that im2col copies (n, h, w, c) to
//
// shapes   x (N, H, W, C), cols (N*OH*OW, KH*KW*C)
// bytes    KH*KW/(SH*SW) times those of x, plus x
// geometry any grid; a thread takes a channel of a tap or pixel at a time, on cpu CHANNELS of them
#include "common/channels.cuh"
#include "common/window.cuh"

KERNEL im2col_copy(const T *__restrict__ x, T *__restrict__ cols, Window g, int64 rows, int C) {
    const int taps = g.KH * g.KW;
    for_pixels_and_channels(rows * taps, C, [=](int64 item) {
        const int64 row = item / taps;
        const int tap = int(item - row * taps);
        const Place out = place(row, g.OH, g.OW);
        const int ih = out.row * g.SH - g.PH + tap / g.KW * g.DH;
        const int iw = out.column * g.SW - g.PW + tap % g.KW * g.DW;
        const bool inside = ih >= 0 && ih < g.H && iw >= 0 && iw < g.W;
        return [=](int c, auto width) {
            const T *source = x + ((out.n * g.H + ih) * g.W + iw) * C + c;
            LANE_LOOP(v, decltype(width)::value) cols[item * C + c + v] = inside ? source[v] : T(0);
        };
    });
}

KERNEL col2im_sum(const T *__restrict__ cols, T *__restrict__ x, Window g, int64 pixels, int C) {
    const int taps = g.KH * g.KW;
    for_pixels_and_channels(pixels, C, [=](int64 pixel) {
        const Place in = place(pixel, g.H, g.W);
        const Cover rows = cover_rows(g, in.row), columns = cover_columns(g, in.column);
        return [=](int c, auto width) {
            constexpr int V = decltype(width)::value;
            acc_t sum[V] = {};
            for (int oh = rows.first; oh <= rows.last; ++oh) {
                const int kh = rows.tap(oh);
                if (kh < 0) continue;
                for (int ow = columns.first; ow <= columns.last; ++ow) {
                    const int kw = columns.tap(ow);
                    if (kw < 0) continue;
                    const int64 row = (in.n * g.OH + oh) * g.OW + ow;
                    const T *source = cols + (row * taps + kh * g.KW + kw) * C + c;
                    LANE_LOOP(v, V) sum[v] += acc_t(source[v]);
                }
            }
            LANE_LOOP(v, V) x[pixel * C + c + v] = T(sum[v]);
        };
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
