// Max- and average-pooling over NHWC images, and their gradients.
//
//   max   y[n, oh, ow, c] = max over the window of x; argmax = offset kh*KW + kw of the maximum.
//         The first maximum in row-major window order wins, NaN wins over numbers (maximum.cuh),
//         padding never wins; a window wholly in the padding gives -inf and offset 0.
//   avg   y[n, oh, ow, c] = sum over the window of x / number of cells counted
//   global average: the window is the image, whose pixels the threads of a block share on cuda
//
// The gradients gather: each input pixel reads the windows that cover it, in a fixed order, so
// there are no atomics and the result is bitwise repeatable. With small windows a thread has all
// pixels between the corners of neighbouring ones, so that it reads few windows for many pixels. On
// cpu that is so if windows do not overlap and leave no gaps: each writes its own pixels.
//
// shapes   x, dx (N, H, W, C); y, dy, argmax (N, OH, OW, C); argmax uint8, uint16 past 256 taps
// bytes    forward reads x KH*KW/(SH*SW) times (mostly from cache), writes y and argmax once; the
//          gradients read dy and argmax as often, but if windows are small ceil(KH/SH)*ceil(KW/SW)
//          times, and write dx once
// geometry any grid; a thread handles a vector of channels of a pixel, or of SH x SW pixels, at a
//          time (channels.cuh). On cuda a kernel is compiled for a small window; on cpu, what
//          depends on row or column alone is computed once for all channels
#include "common/sums.cuh"
#include "pooling/maximum.cuh"
#include "common/window.cuh"

#ifndef TYPE_argmax_t
#define TYPE_argmax_t unsigned char
#endif
using argmax_t = TYPE_argmax_t;

// What is known of small windows on cuda, so that their loops are unrolled: sizes, strides, and
// whether all of them are inside their images. If TAPS_H is 0, nothing is known.
#ifndef TAPS_H
#define TAPS_H 0
#define TAPS_W 0
#define STRIDE_H 1
#define STRIDE_W 1
#define INSIDE 0
#endif
#ifdef __CUDACC__
__device__ inline Window known(Window g) {
    if (TAPS_H) g.KH = TAPS_H, g.KW = TAPS_W, g.SH = STRIDE_H, g.SW = STRIDE_W, g.DH = g.DW = 1;
    if (INSIDE) g.PH = g.PW = 0;
    return g;
}
#else
// A copy would take 3 % longer.
static inline const Window &known(const Window &g) { return g; }
#endif

// Calls body(kh, kw, counts) for the taps of a window of which `counts` is true: those inside its
// image, as all are if INSIDE. If TAPS_H is known, it calls it for the others, too: a choice after
// the load, and no branch before it.
template <class Body>
__device__ __forceinline__ void for_taps(const Taps &down, const Taps &across, const Body &body) {
    if constexpr (TAPS_H > 0) {
        UNROLL(int kh = 0; kh < TAPS_H; ++kh)
            UNROLL(int kw = 0; kw < TAPS_W; ++kw)
                body(kh, kw, INSIDE || (down.has(kh) && across.has(kw)));
    } else {
        for (int kh = down.first; kh < down.end; ++kh)
            for (int kw = across.first; kw < across.end; ++kw) body(kh, kw, true);
    }
}
// A row or column of an image of so many: where for_taps calls for others, too, the next one.
__device__ inline int within(int place, int length) {
    return TAPS_H > 0 && !INSIDE ? smaller(larger(place, 0), length - 1) : place;
}
// Calls body(from, oh, ow, tap) for the windows of image n that cover a pixel, whose elements of y
// begin at `from`.
template <class Body>
__device__ __forceinline__ void for_windows(const Window &g, int64 n, int C, const Cover &down,
                                            const Cover &across, const Body &body) {
    const int64 first = ((n * g.OH + down.first) * g.OW + across.first) * C;
    for (int i = 0; i <= down.last - down.first; ++i)
        for (int j = 0; j <= across.last - across.first; ++j) {
            const int oh = down.first + i, ow = across.first + j;
            const int kh = down.tap(oh), kw = across.tap(ow);
            if (kh < 0 || kw < 0) continue;
            body(first + (int64)(i * g.OW + j) * C, oh, ow, kh * g.KW + kw);
        }
}

KERNEL max_pool2d_forward(const T *__restrict__ x, T *__restrict__ y, argmax_t *__restrict__ argmax,
                          Window given, int64 rows, int C) {
    const Window &g = known(given);
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
            const int first = INSIDE || empty ? 0 : down.first * g.KW + across.first;
            const int64 window = (row + ow) * C;
            channels([&](auto at) {
                constexpr int V = decltype(at)::REGISTERS;
                Maximum maximum[V];  // the first cell in the image wins whatever it holds
                UNROLL(int v = 0; v < V; ++v) maximum[v] = Maximum(lowest, first);
                for_taps(down, across, [&](int kh, int kw, bool counts) INLINE {
                    const int row = within(top + kh * g.DH, g.H);
                    const int pixel = row * g.W + within(left + kw * g.DW, g.W);
                    const T *cell = image + pixel * C + at.first;
                    const int tap = kh * g.KW + kw;
                    at.fetch(cell, ahead);
                    const auto value = at.load(cell);
                    UNROLL(int v = 0; v < V; ++v)
                        maximum[v].meet(counts ? lanes_t(value[v]) : lowest, tap);
                });
                const int64 target = window + at.first;
                at.write(y + target, past, [&](int v) { return maximum[v].best; });
                at.store_whole(argmax + target, [&](int v) { return maximum[v].index; });
            });
        });
    });
}

// write_small writes dx for windows that are small: of(at, from, oh, ow) is a window whose channels
// of y begin at `from`, and of that, (tap, v) the gradient of a pixel in register v of the
// channels.
#ifdef __CUDACC__
__device__ constexpr bool small(const Window &) { return TAPS_H > 0; }

// A thread has SH x SW pixels, the first of which is the corner of a window. The windows that cover
// them begin there, or up to DOWN windows above and ACROSS to the left.
template <class Of>
__device__ __forceinline__ void write_small(T *dx, const Window &g, int64 rows, int C, bool past,
                                            const Of &of) {
    constexpr int DOWN = (TAPS_H - 1) / STRIDE_H, ACROSS = (TAPS_W - 1) / STRIDE_W;
    const int down = ceil_div(g.H + g.PH, STRIDE_H), across = ceil_div(g.W + g.PW, STRIDE_W);
    const auto block = [&](auto at, int64 n, int row, int column) INLINE {
        constexpr int V = decltype(at)::REGISTERS;
        const int64 windows = n * g.OH * g.OW * C + at.first;
        T *const image = dx + n * g.H * g.W * C + at.first;
        typename decltype(at)::Values sums[STRIDE_H][STRIDE_W] = {};
        // What is known when compiled is not asked: i, j, a, b and INSIDE.
        UNROLL(int i = DOWN; i >= 0; --i)
            UNROLL(int j = ACROSS; j >= 0; --j) {
                const int oh = row - i, ow = column - j;
                const bool exists = (!i || oh >= 0) && oh < g.OH && (!j || ow >= 0) && ow < g.OW;
                const int read_row = smaller(i ? larger(oh, 0) : oh, g.OH - 1);
                const int read = read_row * g.OW + smaller(j ? larger(ow, 0) : ow, g.OW - 1);
                auto window = of(at, windows + (int64)read * C, oh, ow);
                if (!exists) window.value = {};
                UNROLL(int kh = i * STRIDE_H; kh < smaller((i + 1) * STRIDE_H, TAPS_H); ++kh)
                    UNROLL(int kw = j * STRIDE_W; kw < smaller((j + 1) * STRIDE_W, TAPS_W); ++kw) {
                        auto &sum = sums[kh - i * STRIDE_H][kw - j * STRIDE_W];
                        const bool first = kh + STRIDE_H >= TAPS_H && kw + STRIDE_W >= TAPS_W;
                        UNROLL(int v = 0; v < V; ++v) {
                            const acc_t own = window(kh * TAPS_W + kw, v);
                            sum[v] = first ? own : sum[v] + own;
                        }
                    }
            }
        UNROLL(int a = 0; a < STRIDE_H; ++a)
            UNROLL(int b = 0; b < STRIDE_W; ++b) {
                const int h = row * STRIDE_H - g.PH + a, w = column * STRIDE_W - g.PW + b;
                const bool has_row = (INSIDE || h >= 0) && (INSIDE && !a || h < g.H);
                const bool exists = has_row && (INSIDE || w >= 0) && (INSIDE && !b || w < g.W);
                if (exists) at.write(image + (h * g.W + w) * C, past, sums[a][b]);
            }
    };
    for_images(rows / g.H * down, down, across, C, [&](int64 n, int row, const auto &columns) {
        columns([&](int column, const auto &channels) {
            channels([&](auto at) INLINE { block(at, n, row, column); });
        });
    });
}
#else
// Whether windows do not overlap and leave no gaps, so that each pixel is in at most one, and are
// small enough for a thread to handle one at a time.
static inline bool small(const Window &g) {
    return g.SH == g.KH && g.SW == g.KW && g.DH == 1 && g.DW == 1 && g.PH == 0 && g.PW == 0 &&
           g.KH * g.KW <= 16;
}
// Pixels past the last window get zero.
template <class Of>
static __forceinline__ void write_small(T *dx, const Window &g, int64 rows, int C, bool past,
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
                const auto write = [&](const auto &value) INLINE {
                    for_taps(Taps(bottom), Taps(right), [&](int kh, int kw, bool) {
                        T *pixel = dx + corner + (kh * g.W + kw) * C + at.first;
                        const int tap = kh * g.KW + kw;
                        at.write(pixel, past, [&](int v) { return value(tap, v); });
                    });
                };
                if (covered)
                    write(of(at, window + at.first, oh, ow));
                else
                    write([](int, int) { return lanes_t{}; });
            });
        });
    });
}
#endif

// The gradients of a window's pixels: that of the window at the maximum, else zero.
template <int V> struct Taken {
    OfChannels<lanes_t, V> value;
    OfChannels<index_t, V> at;

    __device__ __forceinline__ lanes_t operator()(int tap, int v) const {
        return at[v] == tap ? value[v] : lanes_t{};
    }
};

KERNEL max_pool2d_backward(const T *__restrict__ dy, const argmax_t *__restrict__ argmax,
                           T *__restrict__ dx, Window given, int64 rows, int C) {
    const Window &g = known(given);
    const bool past = past_caches<T>(rows * g.W, C);
    if (small(g))
        return write_small(dx, g, rows, C, past, [&](auto at, int64 window, int, int) {
            at.fetch(dy + window);
            return Taken<decltype(at)::REGISTERS>{at.load(dy + window),
                                                  at.load_whole(argmax + window)};
        });
    for_images(rows, g.H, g.W, C, [&](int64 n, int h, const auto &columns) {
        const Cover down(vertical(g), h);
        Cover across(horizontal(g));
        const int64 row = (n * g.H + h) * g.W;
        columns([&](int w, const auto &channels) {
            across.to(w);
            channels([&](auto at) {
                constexpr int V = decltype(at)::REGISTERS;
                OfChannels<lanes_t, V> sum = {};
                for_windows(g, n, C, down, across, [&](int64 from, int, int, int tap) INLINE {
                    const int64 window = from + at.first;
                    at.fetch(dy + window);
                    const auto value = at.load(dy + window);
                    const auto index = at.load_whole(argmax + window);
                    UNROLL(int v = 0; v < V; ++v) sum[v] += index[v] == tap ? value[v] : lanes_t{};
                });
                at.write(dx + (row + w) * C + at.first, past, sum);
            });
        });
    });
}

// Converts offsets in windows to positions ih*W + iw in the channel plane; -1 for a window that is
// entirely in the padding.
KERNEL pool_indices(const argmax_t *__restrict__ argmax, int64 *__restrict__ indices, Window given,
                    int64 rows, int C) {
    const Window &g = known(given);
    for_images(rows, g.OH, g.OW, C, [&](int64 n, int oh, const auto &columns) {
        const int64 row = (n * g.OH + oh) * g.OW;
        const int top = oh * g.SH - g.PH;
        columns([&](int ow, const auto &channels) {
            const int left = ow * g.SW - g.PW;
            channels([&](auto at) {
                const int64 i = (row + ow) * C + at.first;
                const auto offset = at.load_whole(argmax + i);
                at.store_whole(indices + i, [&](int v) {
                    const index_t kh = offset[v] / g.KW, kw = offset[v] - kh * g.KW;
                    const index_t ih = top + kh * g.DH, iw = left + kw * g.DW;
                    const auto inside = (ih >= 0) & (ih < g.H) & (iw >= 0) & (iw < g.W);
                    return inside ? ih * g.W + iw : index_t{} - 1;
                });
            });
        });
    });
}

// The weight of a cell in its window's average. With `padded`, cells of the padding count, up to
// `bottom` and `right` cells past the image, but not cells beyond it, which a rounded-up last
// window may reach. A window without a cell gives 0.
struct Average {
    int padded, bottom, right;
    acc_t whole;  // the weight in a window whose cells all count

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

KERNEL avg_pool2d_forward(const T *__restrict__ x, T *__restrict__ y, Window given, int64 rows,
                          int C, int padded, int bottom, int right) {
    const Window &g = known(given);
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
                OfChannels<lanes_t, V> sum = {};
                for_taps(down, across, [&](int kh, int kw, bool counts) INLINE {
                    const int row = within(top + kh * g.DH, g.H);
                    const int pixel = row * g.W + within(left + kw * g.DW, g.W);
                    const T *cell = image + pixel * C + at.first;
                    at.fetch(cell, ahead);
                    const auto value = at.load(cell);
                    UNROLL(int v = 0; v < V; ++v) sum[v] += counts ? lanes_t(value[v]) : lanes_t{};
                });
                at.write(y + (row + ow) * C + at.first, past,
                         [&](int v) { return sum[v] * share; });
            });
        });
    });
}

// The gradients of a window's pixels: all are equal.
template <int V> struct Shared {
    OfChannels<lanes_t, V> value;

    __device__ __forceinline__ lanes_t operator()(int, int v) const { return value[v]; }
};

KERNEL avg_pool2d_backward(const T *__restrict__ dy, T *__restrict__ dx, Window given, int64 rows,
                           int C, int padded, int bottom, int right) {
    const Window &g = known(given);
    const Average average(g, padded, bottom, right);
    const bool past = past_caches<T>(rows * g.W, C);
    if (small(g))
        return write_small(dx, g, rows, C, past, [&](auto at, int64 window, int oh, int ow) {
            const acc_t share = average.share(g, oh, ow);
            at.fetch(dy + window);
            Shared<decltype(at)::REGISTERS> shared{at.load(dy + window)};
            UNROLL(int v = 0; v < at.REGISTERS; ++v) shared.value[v] *= share;
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
                OfChannels<lanes_t, V> sum = {};
                for_windows(g, n, C, down, across, [&](int64 from, int oh, int ow, int) INLINE {
                    const acc_t share = average.share(g, oh, ow);
                    const auto value = at.load(dy + from + at.first);
                    UNROLL(int v = 0; v < V; ++v) sum[v] += value[v] * share;
                });
                at.write(dx + (row + w) * C + at.first, past, sum);
            });
        });
    });
}

KERNEL __launch_bounds__(TEAM, TEAMS)
global_avg_pool2d_forward(const T *__restrict__ x, T *__restrict__ y, int pixels, int C) {
    const int64 image = blockIdx.x;
    const acc_t share = acc_t(1) / pixels;
    sum_rows(x, image * pixels, (image + 1) * pixels, C, [=](auto at, const auto &sum) {
        at.store(y + image * C + at.first, [&](int v) { return sum[v] * share; });
    });
}

KERNEL global_avg_pool2d_backward(const T *__restrict__ dy, T *__restrict__ dx, int pixels, int C) {
    const int64 image = blockIdx.x;
    const acc_t share = acc_t(1) / pixels;
    const bool past = past_caches<T>((int64)gridDim.x * pixels, C);
    for_chunk(image * pixels, (image + 1) * pixels, C, [=](auto at, const auto &rows) {
        const auto gradient = at.load(dy + image * C + at.first);
        for (int64 r = rows.begin; r < rows.end; r += rows.step)
            at.write(dx + r * C + at.first, past, [&](int v) { return gradient[v] * share; });
    });
}
