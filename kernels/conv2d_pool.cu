// The gradients of convolution, max-pooling and ReLU in one, without what is zero in them.
//
//   Of the pixels in a pooling window the gradient reaches only the maximum, and not even that
//   where the ReLU clipped. With g[p, f] = dy[p, f] where y[p, f] > 0, else 0, for window p and
//   filter f, whose maximum lies at place q = argmax[p, f]:
//
//   dx[taps under (p, q)] += g[p, f] * w[f, :]
//   dw[f, :]              += g[p, f] * x[taps under (p, q)]        db[f] += g[p, f]
//
//   That is a quarter of the dense products for windows of 2 x 2, and the gradient of the
//   convolution's own output is never written.
//
// shapes   x, dx (N, H, W, C); y, dy, argmax (N, PH, PW, F). In shared memory lies one image, with
//          its padding and every pixel rounded up to whole vectors, so that no load crosses a cache
//          line: height x width pixels of `depth` channels. Filters and their gradients are
//          (F, KH, run), a row of `run` columns being KW * depth rounded up to whole vectors
// bytes    x, y, dy, argmax and dx once; filters and partial gradients from cache
// geometry a block takes a share of the images, a thread FILTERS x ROWS x VECTORS vectors of filter
//          columns. Partial sums, a block's (F, KH, run) and then its biases (F), are added up in
//          order afterwards
#include "dialect.cuh"
#include "window.cuh"

// What a thread sums up in registers; the runtime passes what fits the filter, editors get these.
#ifndef ROWS
#define FILTERS 1
#define ROWS 1
#define VECTORS 1
#endif

using lanes_t = Simd<acc_t>::type;
constexpr int LANES = Simd<acc_t>::LANES;

// A pooling window of KH x KW pixels of the convolution's output, PH x PW of them in an image; the
// image in shared memory; and the columns of a row of taps.
struct Pool { int PH, PW, KH, KW, height, width, depth, run; };

struct Canvas {
    acc_t *pixels;
    const Window &g;
    const Pool &pool;
    int C;

    __device__ int pitch() const { return pool.width * pool.depth; }
    __device__ int tap_pitch() const { return g.DH * pitch(); }  // from a row of taps to the next
    __device__ int size() const { return pool.height * pitch() + pool.run; }

    // Where the taps of place q of pooling window p begin.
    __device__ int place(int p, int q) const {
        const int oh = p / pool.PW * pool.KH + q / pool.KW;
        const int ow = p % pool.PW * pool.KW + q % pool.KW;
        return oh * g.SH * pitch() + ow * g.SW * pool.depth;
    }
    __device__ void clear() const {
        BLOCK_STRIDE(i, size()) pixels[i] = 0;
    }

    // body(element of the image, element here, length) for every pixel of the image; pixels that
    // are neighbours here, too, go together, a row of them.
    template <class Body> __device__ void for_pixels(const Body &body) const {
        const int pieces = pool.depth == C ? 1 : g.W, length = g.W / pieces * C;
        BLOCK_STRIDE(i, g.H * pieces) {
            const int h = i / pieces, w = i - h * pieces;
            body((h * g.W + w) * C, (h + g.PH) * pitch() + (w + g.PW) * pool.depth, length);
        }
    }
    // What vectors hold past the end is padding, or overwritten by the next row.
    __device__ void take(const T *image) const {
        for_pixels([&](int element, int place, int length) {
            for (int c = 0; c < length; c += LANES)
                store_lanes(pixels + place + c,
                            lanes_t(load_first(image + element + c, length - c)));
        });
    }
    __device__ void give(T *image) const {
        for_pixels([&](int element, int place, int length) {
            for (int c = 0; c < length; c += LANES)
                store_first(image + element + c, load_lanes(pixels + place + c), length - c);
        });
    }
};

// A filter's columns in parts, one for each thread's registers.
struct Parts {
    int run, across, count;  // columns of a row of taps, parts of it, parts in all

    __device__ Parts(const Canvas &canvas)
        : run(canvas.pool.run), across(run / (VECTORS * LANES)),
          count(canvas.g.KH / ROWS * across) {}
    __device__ int row(int part) const { return part / across * ROWS; }
    __device__ int column(int part) const { return part % across * VECTORS * LANES; }
};

// ROWS x VECTORS vectors in registers, `pitch` elements from row to row in memory.
struct Registers {
    lanes_t sum[ROWS][VECTORS];

    __device__ __forceinline__ void add(acc_t value, const acc_t *taps, int pitch) {
        UNROLL for (int r = 0; r < ROWS; ++r, taps += pitch)
            UNROLL for (int v = 0; v < VECTORS; ++v) sum[r][v] +=
            value * load_lanes(taps + v * LANES);
    }
    __device__ __forceinline__ void add_to(acc_t *total, int pitch) const {
        UNROLL for (int r = 0; r < ROWS; ++r, total += pitch)
            UNROLL for (int v = 0; v < VECTORS; ++v)
                store_lanes(total + v * LANES, load_lanes(total + v * LANES) + sum[r][v]);
    }
};

// The first image of a block's share; the next block's is the end of it.
__device__ inline int share(int images, unsigned block) {
    return int((int64)images * block / gridDim.x);
}

KERNEL conv2d_pool_filter_gradient(const T *__restrict__ dy, const T *__restrict__ y,
                                   const uint8 *__restrict__ argmax, const T *__restrict__ x,
                                   acc_t *__restrict__ partial, Window g, Pool pool, int images,
                                   int C, int F) {
    DYNAMIC_SHARED(acc_t, memory);
    const Canvas canvas{memory, g, pool, C};
    const Parts parts(canvas);
    const int windows = pool.PH * pool.PW, places = pool.KH * pool.KW, pitch = canvas.tap_pitch();
    const int run = parts.run, columns = g.KH * run;
    acc_t *gradient = memory + canvas.size();                      // g (windows, F)
    int *place = reinterpret_cast<int *>(gradient + windows * F);  // (windows, places)
    BLOCK_STRIDE(i, windows * places) place[i] = canvas.place(i / places, i % places);
    canvas.clear();
    partial += (int64)blockIdx.x * F * (columns + 1);
    acc_t *bias = partial + F * columns;
    BLOCK_STRIDE(i, F * (columns + 1)) partial[i] = 0;
    for (int n = share(images, blockIdx.x); n < share(images, blockIdx.x + 1); ++n) {
        __syncthreads();  // the canvas is clear, or no longer read
        canvas.take(x + (int64)n * g.H * g.W * C);
        const int64 first = (int64)n * windows * F;
        BLOCK_STRIDE(i, windows * F)
            gradient[i] = acc_t(y[first + i]) > 0 ? acc_t(dy[first + i]) : acc_t(0);
        __syncthreads();  // canvas and gradient are whole
        BLOCK_STRIDE(item, F / FILTERS * parts.count) {
            const int f0 = item / parts.count * FILTERS, part = item % parts.count;
            const int row = parts.row(part), column = parts.column(part);
            const acc_t *source = canvas.pixels + row * pitch + column;
            const acc_t *value = gradient + f0;
            const uint8 *index = argmax + first + f0;
            acc_t *target = partial + (int64)f0 * columns + row * run + column;
            Registers sums[FILTERS] = {};
            for (int p = 0; p < windows; ++p, value += F, index += F)
                UNROLL for (int f = 0; f < FILTERS; ++f) sums[f].add(
                    value[f], source + place[p * places + index[f]], pitch);
            UNROLL for (int f = 0; f < FILTERS; ++f) sums[f].add_to(target + f * columns, run);
        }
        BLOCK_STRIDE(i, ceil_div(F, LANES)) {
            const int f = i * LANES;
            lanes_t sum = load_first(bias + f, F - f);
            for (int p = 0; p < windows; ++p) sum += load_first(gradient + p * F + f, F - f);
            store_first(bias + f, sum, F - f);
        }
    }
}

KERNEL conv2d_pool_input_gradient(const T *__restrict__ dy, const T *__restrict__ y,
                                  const uint8 *__restrict__ argmax, const acc_t *__restrict__ w,
                                  T *__restrict__ dx, Window g, Pool pool, int images, int C,
                                  int F) {
    DYNAMIC_SHARED(acc_t, memory);
    const Canvas canvas{memory, g, pool, C};
    const Parts parts(canvas);
    const int windows = pool.PH * pool.PW, places = pool.KH * pool.KW, pitch = canvas.tap_pitch();
    // The filters of one window by the place of their maximum, and their gradients.
    acc_t *value = memory + canvas.size();                      // (places, F)
    int *filter = reinterpret_cast<int *>(value + places * F);  // (places, F)
    int *count = filter + places * F;                           // (places)
    for (int n = share(images, blockIdx.x); n < share(images, blockIdx.x + 1); ++n) {
        canvas.clear();
        for (int p = 0; p < windows; ++p) {
            __syncthreads();  // the canvas is clear, the last window's filters no longer read
            // One thread sorts, so that sums keep the order of the filters; without a branch on the
            // data, which none could predict.
            if (threadIdx.x == 0) {
                const int64 first = ((int64)n * windows + p) * F;
                for (int q = 0; q < places; ++q) count[q] = 0;
                for (int f = 0; f < F; ++f) {
                    const int q = argmax[first + f], at = q * F + count[q];
                    filter[at] = f * g.KH * parts.run;
                    value[at] = acc_t(dy[first + f]);
                    count[q] += acc_t(y[first + f]) > 0;
                }
            }
            for (int q = 0; q < places; ++q) {
                __syncthreads();  // filters are sorted; the last place met the same pixels
                BLOCK_STRIDE(part, parts.count) {
                    const int row = parts.row(part), column = parts.column(part);
                    const acc_t *source = w + row * parts.run + column;
                    acc_t *target = canvas.pixels + canvas.place(p, q) + row * pitch + column;
                    Registers sums = {};
                    for (int a = q * F; a < q * F + count[q]; ++a)
                        sums.add(value[a], source + filter[a], parts.run);
                    sums.add_to(target, pitch);
                }
            }
        }
        __syncthreads();  // the canvas is whole
        canvas.give(dx + (int64)n * g.H * g.W * C);
        __syncthreads();  // before the next image clears it
    }
}

// The filters (F, KH, KW, C) as they lie in shared memory: (F, KH, run), zero between.
KERNEL pad_filters(const T *__restrict__ w, acc_t *__restrict__ padded, int rows, int KW, int C,
                   int depth, int run) {
    GRID_STRIDE(row, rows) {
        for (int k = 0; k < run; ++k) padded[row * run + k] = 0;
        for (int kw = 0; kw < KW; ++kw)
            for (int c = 0; c < C; ++c)
                padded[row * run + kw * depth + c] = acc_t(w[(row * KW + kw) * C + c]);
    }
}

// dw (F, KH, KW, C) and, unless it is null, db (F): the partial sums added up in order.
KERNEL sum_filters(const acc_t *__restrict__ partial, T *__restrict__ dw, T *__restrict__ db, int F,
                   int KH, int KW, int C, int depth, int run, int blocks) {
    const int taps = KH * KW, columns = KH * run;
    GRID_STRIDE(item, (int64)F * (taps * C + 1)) {
        const int f = int(item / (taps * C + 1)), k = int(item - (int64)f * (taps * C + 1));
        const int tap = k / C, kh = tap / KW, kw = tap - kh * KW;
        const int64 from = tap == taps ? (int64)F * columns + f
                                       : (int64)f * columns + kh * run + kw * depth + k - tap * C;
        acc_t sum = 0;
        for (int s = 0; s < blocks; ++s) sum += partial[(int64)s * F * (columns + 1) + from];
        if (tap < taps)
            dw[(int64)f * taps * C + k] = T(sum);
        else if (db)
            db[f] = T(sum);
    }
}
