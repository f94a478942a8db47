// Max- and average-pooling over NHWC images, and their gradients.
//
//   max   y[n, oh, ow, c] = max over the window of x; argmax = offset kh*KW + kw of the maximum.
//         The first maximum in row-major window order wins, NaN wins over numbers, padding never
//         wins; a window wholly in the padding gives -inf and offset 0.
//   avg   y[n, oh, ow, c] = sum over the window of x / number of cells counted
//   global average: the window is the image
//
// The gradients gather: each input pixel looks at the windows that cover it, in a fixed order, so
// there are no atomics and the result is bitwise repeatable. Small windows that touch and do not
// overlap write their own pixels instead, so that what is read of a window is read once.
//
// shapes   x, dx (N, H, W, C); y, dy, argmax (N, OH, OW, C); argmax uint8, uint16 past 256 taps
// bytes    forward reads x KH*KW/(SH*SW) times (mostly from cache), writes y and argmax once; the
//          gradients read as often (once where windows write), and write dx once
// geometry any grid; a thread takes a channel of a pixel, or of a window that writes, at a time, on
//          cpu up to four SIMD registers of channels. What depends on the row or the column alone
//          is done once for all of them
#include "common/channels.cuh"
#include "pooling/maximum.cuh"
#include "common/window.cuh"

#ifndef TYPE_argmax_t
#define TYPE_argmax_t unsigned char
#endif
using argmax_t = TYPE_argmax_t;
using lanes_t = Simd<acc_t>::type;
using index_t = Simd<acc_t>::index;

KERNEL max_pool2d_forward(const T *__restrict__ x, T *__restrict__ y, argmax_t *__restrict__ argmax,
                          Window g, int64 rows, int C) {
    const int ahead = row_ahead((int64)g.SH * g.W * C);
    const bool past = past_caches<T>(rows * g.OW, C);
    const lanes_t lowest = acc_t(-infinity()) - lanes_t{};
    for_images(rows, g.OH, g.OW, C, [&](int64 n, int oh, const auto &columns) {
        const Taps down(vertical(g), oh);
        const T *image = x + n * g.H * g.W * C;
        const int64 row = (n * g.OH + oh) * g.OW;
        columns([&](int ow, const auto &channels) {
            const Taps across(horizontal(g), ow);
            const int top = oh * g.SH - g.PH, left = ow * g.SW - g.PW;
            const bool empty = down.count() == 0 || across.count() == 0;
            const int first = empty ? 0 : down.first * g.KW + across.first;
            const int64 window = (row + ow) * C;
            channels([&](auto at) {
                constexpr int V = decltype(at)::REGISTERS;
                Maximum maximum[V];  // the first cell in the image wins whatever it holds
                UNROLL for (int v = 0; v < V; ++v) maximum[v] = Maximum(lowest, first);
                for (int kh = down.first; kh < down.end; ++kh)
                    for (int kw = across.first; kw < across.end; ++kw) {
                        const int pixel = (top + kh * g.DH) * g.W + left + kw * g.DW;
                        const T *cell = image + pixel * C + at.first;
                        const int tap = kh * g.KW + kw;
                        UNROLL for (int v = 0; v < V; ++v) {
                            at.fetch(cell, v, ahead);
                            maximum[v].meet(at.load(cell, v), tap);
                        }
                    }
                const int64 target = window + at.first;
                UNROLL for (int v = 0; v < V; ++v) {
                    at.write(y + target, v, maximum[v].best, past);
                    at.store_whole(argmax + target, v, maximum[v].index);
                }
            });
        });
    });
}

// Whether windows touch and do not overlap, so that each pixel is in one of them at most, and are
// so small that a thread may take one at a time.
__device__ inline bool apart(const Window &g) {
    return g.SH == g.KH && g.SW == g.KW && g.DH == 1 && g.DW == 1 && g.PH == 0 && g.PW == 0 &&
           g.KH * g.KW <= 16;
}

// dx of such windows: of(at, window, oh, ow)(tap, v) is what a window's pixel gets, in register v
// of its channels. Pixels past the last window get zero.
template <class Of>
__device__ __forceinline__ void write_apart(T *dx, const Window &g, int64 rows, int C, bool past,
                                            const Of &of) {
    const int down = ceil_div(g.H, g.KH), across = ceil_div(g.W, g.KW);
    for_images(rows / g.H * down, down, across, C, [&](int64 n, int oh, const auto &columns) {
        const int bottom = smaller(g.KH, g.H - oh * g.KH);
        columns([&](int ow, const auto &channels) {
            const int right = smaller(g.KW, g.W - ow * g.KW);
            const bool covered = oh < g.OH && ow < g.OW;
            const int64 window = ((n * g.OH + oh) * g.OW + ow) * C;
            const int64 corner = ((n * g.H + oh * g.KH) * g.W + ow * g.KW) * C;
            channels([&](auto at) {
                constexpr int V = decltype(at)::REGISTERS;
                const auto write = [&](const auto &value) {
                    for (int kh = 0; kh < bottom; ++kh)
                        for (int kw = 0; kw < right; ++kw) {
                            T *pixel = dx + corner + ((int64)kh * g.W + kw) * C + at.first;
                            UNROLL for (int v = 0; v < V; ++v)
                                at.write(pixel, v, value(kh * g.KW + kw, v), past);
                        }
                };
                if (covered)
                    write(of(at, window + at.first, oh, ow));
                else
                    write([](int, int) { return lanes_t{}; });
            });
        });
    });
}

// What a window's pixels get of its gradient: all, where the maximum was, or nothing.
template <int V> struct Taken {
    lanes_t value[V];
    index_t at[V];

    __device__ __forceinline__ lanes_t operator()(int tap, int v) const {
        return at[v] == tap ? value[v] : lanes_t{};
    }
};

KERNEL max_pool2d_backward(const T *__restrict__ dy, const argmax_t *__restrict__ argmax,
                           T *__restrict__ dx, Window g, int64 rows, int C) {
    const bool past = past_caches<T>(rows * g.W, C);
    if (apart(g))
        return write_apart(dx, g, rows, C, past, [&](auto at, int64 window, int, int) {
            Taken<decltype(at)::REGISTERS> taken;
            UNROLL for (int v = 0; v < at.REGISTERS; ++v) {
                at.fetch(dy + window, v);
                taken.value[v] = at.load(dy + window, v);
                taken.at[v] = at.load_whole(argmax + window, v);
            }
            return taken;
        });
    for_images(rows, g.H, g.W, C, [&](int64 n, int h, const auto &columns) {
        const Cover down(vertical(g), h);
        Cover across(horizontal(g));
        const int64 row = (n * g.H + h) * g.W;
        columns([&](int w, const auto &channels) {
            across.to(w);
            channels([&](auto at) {
                constexpr int V = decltype(at)::REGISTERS;
                lanes_t sum[V] = {};
                for (int oh = down.first; oh <= down.last; ++oh) {
                    const int kh = down.tap(oh);
                    if (kh < 0) continue;
                    for (int ow = across.first; ow <= across.last; ++ow) {
                        const int kw = across.tap(ow);
                        if (kw < 0) continue;
                        const int64 window = ((n * g.OH + oh) * g.OW + ow) * C + at.first;
                        const int tap = kh * g.KW + kw;
                        UNROLL for (int v = 0; v < V; ++v) {
                            at.fetch(dy + window, v);
                            const lanes_t value = at.load(dy + window, v);
                            const auto taken = at.load_whole(argmax + window, v) == tap;
                            sum[v] += taken ? value : lanes_t{};
                        }
                    }
                }
                UNROLL for (int v = 0; v < V; ++v)
                    at.write(dx + (row + w) * C + at.first, v, sum[v], past);
            });
        });
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
    const int ahead = row_ahead((int64)g.SH * g.W * C);
    const bool past = past_caches<T>(rows * g.OW, C);
    for_images(rows, g.OH, g.OW, C, [&](int64 n, int oh, const auto &columns) {
        const Taps down(vertical(g), oh);
        const T *image = x + n * g.H * g.W * C;
        const int64 row = (n * g.OH + oh) * g.OW;
        columns([&](int ow, const auto &channels) {
            const Taps across(horizontal(g), ow);
            const int top = oh * g.SH - g.PH, left = ow * g.SW - g.PW;
            const acc_t share = average.share(g, oh, ow);
            channels([&](auto at) {
                constexpr int V = decltype(at)::REGISTERS;
                lanes_t sum[V] = {};
                for (int kh = down.first; kh < down.end; ++kh)
                    for (int kw = across.first; kw < across.end; ++kw) {
                        const int pixel = (top + kh * g.DH) * g.W + left + kw * g.DW;
                        const T *cell = image + pixel * C + at.first;
                        UNROLL for (int v = 0; v < V; ++v) {
                            at.fetch(cell, v, ahead);
                            sum[v] += at.load(cell, v);
                        }
                    }
                UNROLL for (int v = 0; v < V; ++v)
                    at.write(y + (row + ow) * C + at.first, v, sum[v] * share, past);
            });
        });
    });
}

// What each of a window's pixels gets of its gradient.
template <int V> struct Shared {
    lanes_t value[V];

    __device__ __forceinline__ lanes_t operator()(int, int v) const { return value[v]; }
};

KERNEL avg_pool2d_backward(const T *__restrict__ dy, T *__restrict__ dx, Window g, int64 rows,
                           int C, int padded, int bottom, int right) {
    const Average average(g, padded, bottom, right);
    const bool past = past_caches<T>(rows * g.W, C);
    if (apart(g))
        return write_apart(dx, g, rows, C, past, [&](auto at, int64 window, int oh, int ow) {
            const acc_t share = average.share(g, oh, ow);
            Shared<decltype(at)::REGISTERS> shared;
            UNROLL for (int v = 0; v < at.REGISTERS; ++v) {
                at.fetch(dy + window, v);
                shared.value[v] = at.load(dy + window, v) * share;
            }
            return shared;
        });
    for_images(rows, g.H, g.W, C, [&](int64 n, int h, const auto &columns) {
        const Cover down(vertical(g), h);
        Cover across(horizontal(g));
        const int64 row = (n * g.H + h) * g.W;
        columns([&](int w, const auto &channels) {
            across.to(w);
            channels([&](auto at) {
                constexpr int V = decltype(at)::REGISTERS;
                lanes_t sum[V] = {};
                for (int oh = down.first; oh <= down.last; ++oh) {
                    if (down.tap(oh) < 0) continue;
                    for (int ow = across.first; ow <= across.last; ++ow) {
                        if (across.tap(ow) < 0) continue;
                        const int64 window = ((n * g.OH + oh) * g.OW + ow) * C + at.first;
                        const acc_t share = average.share(g, oh, ow);
                        UNROLL for (int v = 0; v < V; ++v) {
                            sum[v] += at.load(dy + window, v) * share;
                        }
                    }
                }
                UNROLL for (int v = 0; v < V; ++v)
                    at.write(dx + (row + w) * C + at.first, v, sum[v], past);
            });
        });
    });
}
