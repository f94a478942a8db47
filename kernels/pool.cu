// Max- and average-pooling over NHWC images, and their gradients.
//
//   max   y[n, oh, ow, c] = max over the window of x; argmax = offset kh*KW + kw of the maximum.
//         The first maximum in row-major window order wins, NaN wins over numbers, padding never
//         wins; a window wholly in the padding gives -inf and offset 0.
//   avg   y[n, oh, ow, c] = sum over the window of x / number of cells counted
//   global average: the window is the image
//
// The gradients gather: each input pixel looks at the windows that cover it, in a fixed order, so
// there are no atomics and the result is bitwise repeatable.
//
// shapes   x, dx (N, H, W, C); y, dy, argmax (N, OH, OW, C); argmax uint8, uint16 past 256 taps
// bytes    forward reads x KH*KW/(SH*SW) times (mostly from cache), writes y and argmax once
// geometry any grid; a thread takes one (pixel, channel) at a time, on cpu CHANNELS channels
#include "channels.cuh"
#include "window.cuh"

#ifndef TYPE_argmax_t
#define TYPE_argmax_t unsigned char
#endif
using argmax_t = TYPE_argmax_t;

KERNEL max_pool2d_forward(const T *__restrict__ x, T *__restrict__ y, argmax_t *__restrict__ argmax,
                          Window g, int64 pixels, int C) {
    for_pixels_and_channels(pixels, C, [=](int64 pixel) {
        const Place out = place(pixel, g.OH, g.OW);
        return [=](int c, auto width) {
            constexpr int V = decltype(width)::value;
            acc_t best[V];
            int offset[V];
            LANE_LOOP(v, V) best[v] = -infinity();
            LANE_LOOP(v, V) offset[v] = -1;
            for (int kh = 0; kh < g.KH; ++kh) {
                const int ih = out.row * g.SH - g.PH + kh * g.DH;
                if (ih < 0 || ih >= g.H) continue;
                for (int kw = 0; kw < g.KW; ++kw) {
                    const int iw = out.column * g.SW - g.PW + kw * g.DW;
                    if (iw < 0 || iw >= g.W) continue;
                    const T *source = x + ((out.n * g.H + ih) * g.W + iw) * C + c;
                    LANE_LOOP(v, V) {
                        const acc_t value = acc_t(source[v]);
                        // Negated so that a NaN wins; a NaN that already won stays. The first
                        // cell in the image wins whatever it holds. No branches: SIMD.
                        const bool wins =
                            (offset[v] < 0) | (!(value <= best[v]) & !is_nan(best[v]));
                        best[v] = wins ? value : best[v];
                        offset[v] = wins ? kh * g.KW + kw : offset[v];
                    }
                }
            }
            LANE_LOOP(v, V) y[pixel * C + c + v] = T(best[v]);
            LANE_LOOP(v, V) argmax[pixel * C + c + v] = argmax_t(larger(offset[v], 0));
        };
    });
}

KERNEL max_pool2d_backward(const T *__restrict__ dy, const argmax_t *__restrict__ argmax,
                           T *__restrict__ dx, Window g, int64 pixels, int C) {
    for_pixels_and_channels(pixels, C, [=](int64 pixel) {
        const Place in = place(pixel, g.H, g.W);
        const Cover rows = cover_rows(g, in.row), columns = cover_columns(g, in.column);
        return [=](int c, auto width) {
            constexpr int V = decltype(width)::value;
            acc_t sum[V] = {};
            for (int oh = rows.first; oh <= rows.last; ++oh) {
                const int kh = rows.tap(oh);
                for (int ow = columns.first; ow <= columns.last; ++ow) {
                    const int kw = columns.tap(ow);
                    // Taps of -1, from holes between dilated ones, must match no offset.
                    const int tap = kh < 0 || kw < 0 ? -1 : kh * g.KW + kw;
                    const int64 window = ((in.n * g.OH + oh) * g.OW + ow) * C + c;
                    LANE_LOOP(v, V) {
                        const acc_t value = acc_t(dy[window + v]);
                        sum[v] += argmax[window + v] == tap ? value : acc_t(0);
                    }
                }
            }
            LANE_LOOP(v, V) dx[pixel * C + c + v] = T(sum[v]);
        };
    });
}

// Window offsets to positions ih*W + iw in the channel plane; -1 for a window in the padding.
KERNEL pool_indices(const argmax_t *__restrict__ argmax, int64 *__restrict__ indices, Window g,
                    int64 pixels, int C) {
    for_pixels_and_channels(pixels, C, [=](int64 pixel) {
        const Place out = place(pixel, g.OH, g.OW);
        return [=](int c, auto width) {
            for (int v = 0; v < decltype(width)::value; ++v) {
                const int offset = argmax[pixel * C + c + v];
                const int ih = out.row * g.SH - g.PH + offset / g.KW * g.DH;
                const int iw = out.column * g.SW - g.PW + offset % g.KW * g.DW;
                const bool inside = ih >= 0 && ih < g.H && iw >= 0 && iw < g.W;
                indices[pixel * C + c + v] = inside ? (int64)ih * g.W + iw : -1;
            }
        };
    });
}

// Cells of one axis' window at output o that lie in [low, high).
__device__ inline int cells(int o, int stride, int padding, int taps, int dilation, int low,
                            int high) {
    int count = 0;
    for (int k = 0; k < taps; ++k) {
        const int i = o * stride - padding + k * dilation;
        count += i >= low && i < high;
    }
    return count;
}

// The divisor of one average. With `padded` the padding counts, up to `bottom` and `right` cells
// past the image, but not what a rounded-up last window reaches beyond that. At least 1, so that a
// window without a cell gives 0.
__device__ inline acc_t counted(const Window &g, int oh, int ow, int padded, int bottom,
                                int right) {
    const int rows = padded ? cells(oh, g.SH, g.PH, g.KH, g.DH, -g.PH, g.H + bottom)
                            : cells(oh, g.SH, g.PH, g.KH, g.DH, 0, g.H);
    const int columns = padded ? cells(ow, g.SW, g.PW, g.KW, g.DW, -g.PW, g.W + right)
                               : cells(ow, g.SW, g.PW, g.KW, g.DW, 0, g.W);
    return larger(acc_t(rows) * acc_t(columns), acc_t(1));
}

KERNEL avg_pool2d_forward(const T *__restrict__ x, T *__restrict__ y, Window g, int64 pixels, int C,
                          int padded, int bottom, int right) {
    for_pixels_and_channels(pixels, C, [=](int64 pixel) {
        const Place out = place(pixel, g.OH, g.OW);
        const acc_t count = counted(g, out.row, out.column, padded, bottom, right);
        return [=](int c, auto width) {
            constexpr int V = decltype(width)::value;
            acc_t sum[V] = {};
            for (int kh = 0; kh < g.KH; ++kh) {
                const int ih = out.row * g.SH - g.PH + kh * g.DH;
                if (ih < 0 || ih >= g.H) continue;
                for (int kw = 0; kw < g.KW; ++kw) {
                    const int iw = out.column * g.SW - g.PW + kw * g.DW;
                    if (iw < 0 || iw >= g.W) continue;
                    const T *source = x + ((out.n * g.H + ih) * g.W + iw) * C + c;
                    LANE_LOOP(v, V) sum[v] += acc_t(source[v]);
                }
            }
            LANE_LOOP(v, V) y[pixel * C + c + v] = T(sum[v] / count);
        };
    });
}

KERNEL avg_pool2d_backward(const T *__restrict__ dy, T *__restrict__ dx, Window g, int64 pixels,
                           int C, int padded, int bottom, int right) {
    for_pixels_and_channels(pixels, C, [=](int64 pixel) {
        const Place in = place(pixel, g.H, g.W);
        const Cover rows = cover_rows(g, in.row), columns = cover_columns(g, in.column);
        return [=](int c, auto width) {
            constexpr int V = decltype(width)::value;
            acc_t sum[V] = {};
            for (int oh = rows.first; oh <= rows.last; ++oh) {
                if (rows.tap(oh) < 0) continue;
                for (int ow = columns.first; ow <= columns.last; ++ow) {
                    if (columns.tap(ow) < 0) continue;
                    const acc_t count = counted(g, oh, ow, padded, bottom, right);
                    const T *source = dy + ((in.n * g.OH + oh) * g.OW + ow) * C + c;
                    LANE_LOOP(v, V) sum[v] += acc_t(source[v]) / count;
                }
            }
            LANE_LOOP(v, V) dx[pixel * C + c + v] = T(sum[v]);
        };
    });
}
