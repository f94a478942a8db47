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
// geometry any grid; a thread takes one (pixel, channel) at a time, on cpu LANES channels. What
//          depends on the row or the column alone is done once for all channels on cpu
#include "channels.cuh"
#include "window.cuh"

#ifndef TYPE_argmax_t
#define TYPE_argmax_t unsigned char
#endif
using argmax_t = TYPE_argmax_t;
using lanes_t = Simd<acc_t>::type;
constexpr int LANES = Simd<acc_t>::LANES;
using index_t = Simd<acc_t>::index;

// body(row, column) for all of [row, row_end) x [column, column_end), in order. On cpu the counts
// that are common go without a loop, which would take longer than its body does.
template <int COUNT, class Body>
__device__ __forceinline__ void for_square(int row, int column, const Body &body) {
    UNROLL for (int i = 0; i < COUNT; ++i) UNROLL for (int j = 0; j < COUNT; ++j)
        body(row + i, column + j);
}
template <class Body>
__device__ __forceinline__ void for_pairs(int row, int row_end, int column, int column_end,
                                          const Body &body) {
    if (LANES > 1 && row_end - row == column_end - column) {
        if (row_end - row == 1) return for_square<1>(row, column, body);
        if (row_end - row == 2) return for_square<2>(row, column, body);
        if (row_end - row == 3) return for_square<3>(row, column, body);
    }
    for (int i = row; i < row_end; ++i)
        for (int j = column; j < column_end; ++j) body(i, j);
}

KERNEL max_pool2d_forward(const T *__restrict__ x, T *__restrict__ y, argmax_t *__restrict__ argmax,
                          Window g, int64 rows, int C) {
    for_images(rows, g.OH, g.OW, C, [=](int64 n, int oh) {
        const Taps down(vertical(g), oh);
        const T *image = x + n * g.H * g.W * C;
        const int64 row = (n * g.OH + oh) * g.OW;
        return [=](int ow) {
            const Taps across(horizontal(g), ow);
            const int top = oh * g.SH - g.PH, left = ow * g.SW - g.PW;
            const bool empty = down.count() == 0 || across.count() == 0;
            const int first = empty ? 0 : down.first * g.KW + across.first;
            return [=](int c, int count) {
                // The first cell in the image wins whatever it holds.
                lanes_t best = acc_t(-infinity()) - lanes_t{};
                index_t offset = first - index_t{};
                const auto cell = [&](int kh, int kw) {
                    const int pixel = (top + kh * g.DH) * g.W + left + kw * g.DW;
                    const lanes_t value = lanes_t(load_first(image + pixel * C + c, count));
                    // Negated so that a NaN wins; a NaN that already won stays.
                    const auto wins = !(value <= best) & (best == best);
                    best = wins ? value : best;
                    offset = wins ? kh * g.KW + kw - index_t{} : offset;
                };
                for_pairs(down.first, down.end, across.first, across.end, cell);
                const int64 target = (row + ow) * C + c;
                store_first(y + target, best, count);
                store_first_whole<acc_t>(argmax + target, offset, count);
            };
        };
    });
}

KERNEL max_pool2d_backward(const T *__restrict__ dy, const argmax_t *__restrict__ argmax,
                           T *__restrict__ dx, Window g, int64 rows, int C) {
    for_images(rows, g.H, g.W, C, [=](int64 n, int h) {
        const Cover down(vertical(g), h);
        const int64 row = (n * g.H + h) * g.W;
        return [=, across = Cover(horizontal(g))](int w) mutable {
            across.to(w);
            return [=](int c, int count) {
                lanes_t sum = {};
                const auto window = [&](int oh, int ow) {
                    // Taps of -1, from holes between dilated ones, must match no offset.
                    const int kh = down.tap(oh), kw = across.tap(ow);
                    const int tap = kh < 0 || kw < 0 ? -1 : kh * g.KW + kw;
                    const int64 i = ((n * g.OH + oh) * g.OW + ow) * C + c;
                    const lanes_t value = lanes_t(load_first(dy + i, count));
                    const auto taken = load_first_whole<acc_t>(argmax + i, count) == tap;
                    sum += taken ? value : lanes_t{};
                };
                for_pairs(down.first, down.last + 1, across.first, across.last + 1, window);
                store_first(dx + (row + w) * C + c, sum, count);
            };
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

// The share of a cell in its average. With `padded` the padding counts, up to `bottom` and `right`
// cells past the image, but not what a rounded-up last window reaches beyond that. A window without
// a cell gives 0.
struct Average {
    int padded, bottom, right;
    acc_t whole;  // of a window all of whose cells count

    __device__ Average(const Window &g, int padded, int bottom, int right)
        : padded(padded), bottom(bottom), right(right), whole(acc_t(1) / (g.KH * g.KW)) {}
    __device__ int cells(const Axis &a, int o, int after) const {
        const Taps taps = padded ? Taps(a, o, -a.padding, a.inputs + after) : Taps(a, o);
        return taps.count();
    }
    __device__ acc_t share(const Window &g, int oh, int ow) const {
        const int rows = cells(vertical(g), oh, bottom), columns = cells(horizontal(g), ow, right);
        if (rows == g.KH && columns == g.KW) return whole;
        return acc_t(1) / larger(acc_t(rows) * acc_t(columns), acc_t(1));
    }
};

KERNEL avg_pool2d_forward(const T *__restrict__ x, T *__restrict__ y, Window g, int64 rows, int C,
                          int padded, int bottom, int right) {
    const Average average(g, padded, bottom, right);
    for_images(rows, g.OH, g.OW, C, [=](int64 n, int oh) {
        const Taps down(vertical(g), oh);
        const T *image = x + n * g.H * g.W * C;
        const int64 row = (n * g.OH + oh) * g.OW;
        return [=](int ow) {
            const Taps across(horizontal(g), ow);
            const int top = oh * g.SH - g.PH, left = ow * g.SW - g.PW;
            const acc_t share = average.share(g, oh, ow);
            return [=](int c, int count) {
                lanes_t sum = {};
                const auto cell = [&](int kh, int kw) {
                    const int pixel = (top + kh * g.DH) * g.W + left + kw * g.DW;
                    sum += lanes_t(load_first(image + pixel * C + c, count));
                };
                for_pairs(down.first, down.end, across.first, across.end, cell);
                store_first(y + (row + ow) * C + c, sum * share, count);
            };
        };
    });
}

KERNEL avg_pool2d_backward(const T *__restrict__ dy, T *__restrict__ dx, Window g, int64 rows,
                           int C, int padded, int bottom, int right) {
    const Average average(g, padded, bottom, right);
    for_images(rows, g.H, g.W, C, [=](int64 n, int h) {
        const Cover down(vertical(g), h);
        const int64 row = (n * g.H + h) * g.W;
        return [=, across = Cover(horizontal(g))](int w) mutable {
            across.to(w);
            return [=](int c, int count) {
                lanes_t sum = {};
                const auto window = [&](int oh, int ow) {
                    if (down.tap(oh) < 0 || across.tap(ow) < 0) return;
                    const int64 i = ((n * g.OH + oh) * g.OW + ow) * C + c;
                    sum += lanes_t(load_first(dy + i, count)) * average.share(g, oh, ow);
                };
                for_pairs(down.first, down.last + 1, across.first, across.last + 1, window);
                store_first(dx + (row + w) * C + c, sum, count);
            };
        };
    });
}
