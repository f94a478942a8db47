// Loaders that present a convolution's operands as matrices without writing these.
//
//   im2col(x)   row (n, oh, ow), column (kh, kw, c): the pixel under tap (kh, kw), zero in padding
//
// For the input gradient there are the flipped filters, and an epilogue that stores its results.
// One group's channels at a time. There are fewer than 2^31 rows, checked on the host.
#pragma once

#include "dialect/dialect.cuh"
#include "common/window.cuh"

// The order of im2col's rows: by pixel, or by window of a pool (its windows do not overlap and
// leave no gaps), so that a micro-tile holds whole windows; pixels in no window are left out. A
// Walk follows the order: the next run() rows are neighbours along a row of the image.
struct ByPixel {
    int OH, OW;
    PlacesByNumber places;

    __device__ ByPixel(int OH, int OW) : OH(OH), OW(OW), places(OH, OW) {}
    __device__ Place place(int row) const { return places.at(row); }

    struct Walk {
        Place at;
        int OH, OW;

        int run() const { return OW - at.column; }
        void advance(int count) {  // at most a run
            at.column += count - 1;
            at.advance(OH, OW);
        }
    };
    Walk walk(int row) const { return {place(row), OH, OW}; }
};
struct ByWindow {
    int rows, columns, KH, KW;       // windows in an image, pixels in a window
    PlacesByNumber windows, pixels;  // pixels of windows

    __device__ ByWindow(int rows, int columns, int KH, int KW)
        : rows(rows), columns(columns), KH(KH), KW(KW), windows(rows, columns), pixels(KH, KW) {}
    __device__ Place place(int row) const {
        const Place pixel = pixels.at(row), at = windows.at(int(pixel.n));
        return {at.n, at.row * KH + pixel.row, at.column * KW + pixel.column};
    }

    struct Walk {
        Place at;
        int kh, kw, OH, OW, KH, KW;

        int run() const { return KW - kw; }
        void advance(int count) {
            at.column += count, kw += count;
            if (kw < KW) return;
            kw = 0;
            if (++kh < KH) {
                at.column -= KW, ++at.row;
                return;
            }
            kh = 0, at.row -= KH - 1;
            if (at.column < OW) return;
            at.column = 0, at.row += KH;
            if (at.row == OH) at.row = 0, ++at.n;
        }
    };
    Walk walk(int row) const {
        const int tap = row % (KH * KW);
        return {place(row), tap / KW, tap % KW, rows * KH, columns * KW, KH, KW};
    }
};

template <class Order> struct Im2col {
    const T *x;  // at the group's first channel
    Window window;
    int C, channels;  // of the image, of the group
    Order order;

    // Columns that are contiguous in memory: a row of taps if it has no gaps, else one tap.
    __device__ int run() const {
        return window.DW == 1 && channels == C ? window.KW * channels : channels;
    }
    // The runs of a row of taps.
    __device__ int runs(int run) const { return run > channels ? 1 : window.KW; }

    // The pixel under the first tap, which may be outside the image, and so may be its elements:
    // of those in the image there are fewer than 2^31.
    struct Row {
        const T *image;
        int h, w;
        uint32 first;
    };
    __device__ Row row(int r) const {
        const Window &g = window;
        const Place at = order.place(r);
        const int h = at.row * g.SH - g.PH, w = at.column * g.SW - g.PW;
        return {x + at.n * g.H * g.W * C, h, w, apart(h, w, 0)};
    }

    // A run, by its first tap, and a position in it.
    struct Column { int kh, kw, j; };
    __device__ Column column(int c) const {
        const int run = this->run(), runs = this->runs(run), first = c / run, kh = first / runs;
        return {kh, first - kh * runs, c - first * run};
    }

    template <class Out> __device__ void load(Row row, Column column, int count, Out out) const {
        const Window &g = window;
        const int run = this->run(), runs = this->runs(run);
        int kh = column.kh, kw = column.kw, j = column.j;
        for (int done = 0; done < count; j = 0) {
            const int ih = row.h + kh * g.DH, iw = row.w + kw * g.DW;
            const int length = smaller(run - j, count - done);
            // Elements of the run before `begin` and from `end` on are padding.
            const bool inside = ih >= 0 && ih < g.H;
            const int before = larger(smaller(-iw, g.KW), 0);
            const int until = larger(smaller(g.W - iw, g.KW), 0);
            const int begin = smaller(larger(before * C - j, 0), length);
            const int end = inside ? larger(smaller(until * C - j, length), begin) : begin;
            out.run(row.image + ((int64)ih * g.W + iw) * C + j, begin, end, length);
            done += length;
            if (++kw == runs) kw = 0, ++kh;
        }
    }

    // For gemm_stages.cuh: a tap, by its distance from the first one, and a channel; and how far
    // that is in memory, modulo 2^32.
    struct Segment {
        int h, w, channel;
        uint32 apart;
    };
    __device__ Segment segment(int c) const {
        const int tap = c / channels, kh = tap / window.KW, kw = tap - kh * window.KW;
        const int h = kh * window.DH, w = kw * window.DW, channel = c - tap * channels;
        return {h, w, channel, apart(h, w, channel)};
    }
    __device__ void advance(Segment &segment, int n) const {
        advance_tap(segment, n);
        segment.apart = apart(segment.h, segment.w, segment.channel);
    }
    template <class Segment> __device__ void advance_tap(Segment &segment, int n) const {
        segment.channel += n;
        while (segment.channel >= channels) {
            segment.channel -= channels;
            segment.w += window.DW;
            if (segment.w == window.KW * window.DW) segment.w = 0, segment.h += window.DH;
        }
    }
    __device__ uint32 apart(int h, int w, int channel) const {
        return (uint32(h) * window.W + uint32(w)) * C + channel;
    }
    // Of rows by pixel.
    __device__ int step(int n) const { return n; }
    __device__ void advance(Row &row, int n) const {
        const Window &g = window;
        const int width = g.OW * g.SW, height = g.OH * g.SH;  // of all windows
        row.w += n * g.SW;
        while (row.w >= width - g.PW) row.w -= width, row.h += g.SH;
        while (row.h >= height - g.PH) row.h -= height, row.image += (int64)g.H * g.W * C;
        row.first = apart(row.h, row.w, 0);
    }
    __device__ bool at(const Row &row, const Segment &segment, bool inside, const T *&from) const {
        const int h = row.h + segment.h, w = row.w + segment.w;
        from = row.image + int(row.first + segment.apart);  // exact where it is inside
        return inside & (unsigned(h) < unsigned(window.H)) & (unsigned(w) < unsigned(window.W));
    }

    // For gemm_rows.cuh: the addresses of windows that are entirely in the image.
    static constexpr bool PLAIN = false;
    bool inside() const {
        const Window &g = window;
        const int last_h = (g.OH - 1) * g.SH - g.PH + (g.KH - 1) * g.DH;
        const int last_w = (g.OW - 1) * g.SW - g.PW + (g.KW - 1) * g.DW;
        return g.PH == 0 && g.PW == 0 && last_h < g.H && last_w < g.W;
    }
    struct Walk {
        const Im2col &a;
        typename Order::Walk row;
        bool inside;

        const T *pixel() const {
            const Window &g = a.window;
            const int h = row.at.row * g.SH - g.PH, w = row.at.column * g.SW - g.PW;
            if (!inside) {
                const int last_h = h + (g.KH - 1) * g.DH, last_w = w + (g.KW - 1) * g.DW;
                if ((h < 0) | (w < 0) | (last_h >= g.H) | (last_w >= g.W)) return nullptr;
            }
            return a.x + ((row.at.n * g.H + h) * g.W + w) * a.C;
        }
        bool next(int count, const T **start) {
            bool whole = true;
            if (!inside) {
                for (int i = 0; i < count; ++i, row.advance(1))
                    whole &= (start[i] = pixel()) != nullptr;
                return whole;
            }
            const int64 step = (int64)a.window.SW * a.C;
            while (count > 0) {
                const int run = smaller(row.run(), count);
                const T *const first = pixel();
                for (int done = 0; done < run; done += SLACK)
                    LANE_LOOP(i, SLACK) start[done + i] = first + (done + i) * step;
                row.advance(run);
                start += run, count -= run;
            }
            return true;
        }
    };
    Walk walk(int row) const { return {*this, order.walk(row), inside()}; }
    int64 offset(int column) const {
        const int tap = column / channels, kh = tap / window.KW, kw = tap - kh * window.KW;
        return ((int64)kh * window.DH * window.W + kw * window.DW) * C + column - tap * channels;
    }
};

// Every row_step-th row and column_step-th column of pixels or taps, from the first on.
struct Lattice { int row, column, rows, columns, row_step, column_step; };

// The flipped filters, for the taps of a lattice: a matrix of filters (F, KH, KW, channels) with
// row (tap, f), taps counted from the last, and column c.
struct FlippedFilters {
    const T *w;  // at the group's first filter
    Lattice taps;
    int KH, KW, filters, channels;

    // Where a filter's tap begins, the filter, and the tap's column in the lattice.
    struct Row {
        const T *first;
        int f, column;
    };
    __device__ Row row(int r) const {
        const int tap = taps.rows * taps.columns - 1 - r / filters, f = r % filters;
        const int kh = taps.row + tap / taps.columns * taps.row_step, column = tap % taps.columns;
        const int kw = taps.column + column * taps.column_step;
        return {w + (int64)((f * KH + kh) * KW + kw) * channels, f, column};
    }
    __device__ int column(int c) const { return c; }
    template <class Out>
    __device__ void load(const Row &row, int column, int count, Out out) const {
        out.run(row.first + column, 0, count, count);
    }

    // For gemm_stages.cuh.
    __device__ int segment(int c) const { return c; }
    __device__ void advance(int &segment, int n) const { segment += n; }
    __device__ int step(int n) const { return n; }
    __device__ void advance(Row &row, int n) const {
        const int filter = KH * KW * channels, tap = taps.column_step * channels;
        row.f += n;
        row.first += (int64)n * filter;
        while (row.f >= filters) {
            row.f -= filters;
            row.first -= (int64)filters * filter + tap;
            if (--row.column >= 0) continue;
            row.column += taps.columns;
            row.first += taps.columns * tap - taps.row_step * KW * channels;
        }
    }
    __device__ bool at(const Row &row, int segment, bool inside, const T *&from) const {
        from = row.first + segment;
        return inside;
    }
};

// An input's gradient at the pixels of a lattice, of images (N, H, W, C) from a channel on.
struct AtPixels {
    PastRelu past;
    Lattice pixels;
    int H, W, C, first;

    template <int V>
    __device__ __forceinline__ void store(int m, int n, const lanes_t (&tile)[TM][V], int rows,
                                          int columns) const {
        Place at = place(m, pixels.rows, pixels.columns);
        UNROLL(int i = 0; i < TM; ++i) {
            if (i >= rows) break;
            const Place pixel{at.n, pixels.row + at.row * pixels.row_step,
                              pixels.column + at.column * pixels.column_step};
            const int64 to = ((pixel.n * H + pixel.row) * W + pixel.column) * C + first + n;
            past.store(pixel, first + n, to, tile[i], columns);
            at.advance(pixels.rows, pixels.columns);
        }
    }
};

// A part of the gradients of filters, the columns of the product, from filter `first` on.
#ifdef __CUDACC__
// (F, K)
struct FilterGradient {
    acc_t *weights;
    int K;

    __device__ FilterGradient(acc_t *part, int K, int, int first)
        : weights(part + (int64)first * K), K(K) {}

    template <int V>
    __device__ __forceinline__ void store(int m, int n, const acc_t (&tile)[TM][V], int rows,
                                          int columns) const {
        UNROLL(int v = 0; v < V; ++v) {
            if (v >= columns) break;
            acc_t filter[TM];
            UNROLL(int i = 0; i < TM; ++i) filter[i] = tile[i][v];
            store_row(weights + (int64)(n + v) * K + m, filter, rows);
        }
    }
};
#else
// (K, F): SIMD lanes are filters.
struct FilterGradient : Plain<acc_t> {
    FilterGradient(acc_t *part, int, int F, int first) : Plain<acc_t>{part + first, F} {}
};
#endif
