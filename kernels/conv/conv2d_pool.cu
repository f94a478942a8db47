// The gradients of fused convolution, max-pooling and ReLU on `cpu`, which skip zeros. (On `cuda`,
// unpool.cu writes the gradient of the convolution's output, and conv2d.cu multiplies it.)
//
//   Of the pixels in a pooling window, the gradient reaches only the maximum, and none if the ReLU
//   clipped it. For window p and filter f with the maximum at place q = argmax[p, f], and
//   g[p, f] = dy[p, f], or 0 where y[p, f] <= 0:
//
//   dx[taps under (p, q)] += g[p, f] * w[f, :]
//   dw[f, :]              += g[p, f] * x[taps under (p, q)]        db[f] += g[p, f]
//
//   For windows of 2 x 2 these are a quarter of the products, and the gradient of the convolution's
//   output is never written.
//
// shapes   x, dx (N, H, W, C); y, dy, argmax (N, PH, PW, F). Shared memory holds one image with its
//          padding. Filters and their gradients are (F, rows, run): `run` is the KW * C elements of
//          a row of taps, or all taps where they are one run, rounded up to whole registers
// bytes    x, y, dy, argmax and dx once; filters and partial gradients from cache
// geometry a block takes a share of the images, a thread ROWS x VECTORS registers of columns of
//          filters. The partial sums of the blocks, (F, rows, run) and then the biases (F), are
//          added up in order afterwards
#include "dialect/lanes.cuh"
#include "common/window.cuh"

// Registers of sums of a thread: the runtime passes what fits the filter, editors see these.
#ifndef ROWS
#define ROWS 1
#define VECTORS 1
#endif

constexpr int BITS = 31;  // windows per int, one per bit; the sign is not used

// PH x PW pooling windows of KH x KW pixels in an image; height and width of the image in shared
// memory, and the elements of its strips there, or 0; rows of a filter's taps, and their columns.
struct Pool { int PH, PW, KH, KW, height, width, strips, rows, run; };

// An image with its padding, and room for the register that reaches past its end.
struct Canvas {
    acc_t *pixels;
    const Window &g;
    const Pool &pool;
    int C;

    __device__ int pitch() const { return pool.width * C; }
    __device__ int tap_pitch() const { return g.DH * pitch(); }  // from a row of taps to the next
    __device__ int size() const { return pool.height * pitch() + LANES; }

    __device__ void clear() const {
        BLOCK_STRIDE(i, size()) pixels[i] = 0;
    }
    // body(element of the image, element here, elements) for every row of the image.
    template <class Body> __device__ void for_rows(const Body &body) const {
        BLOCK_STRIDE(h, g.H) body(h * g.W * C, (h + g.PH) * pitch() + g.PW * C, g.W * C);
    }
    __device__ void take(const T *image) const {
        for_rows([&](int element, int place, int length) {
            for (int c = 0; c < length; c += LANES)
                store_first(pixels + place + c,
                            lanes_t(load_first(image + element + c, length - c)), length - c);
        });
    }
    __device__ void give(T *image) const {
        for_rows([&](int element, int place, int length) {
            for (int c = 0; c < length; c += LANES)
                store_first(image + element + c, load_lanes(pixels + place + c), length - c);
        });
    }

    // Cuts a strip (height, KW, C) for each column of outputs, in which all taps of an output are
    // one run. A register may write past its row; the next row overwrites that.
    __device__ void cut(acc_t *strips) const {
        const int length = g.KW * C;
        BLOCK_STRIDE(ow, pool.PW * pool.KW) {
            const acc_t *source = pixels + ow * g.SW * C;
            acc_t *strip = strips + ow * pool.height * length;
            for (int h = 0; h < pool.height; ++h, source += pitch(), strip += length)
                for (int c = 0; c < length; c += LANES)
                    store_lanes(strip + c, load_lanes(source + c));
        }
    }

    // The first tap of place q of pooling window p: in the strips, if there are any.
    __device__ int place(int p, int q) const {
        const int oh = p / pool.PW * pool.KH + q / pool.KW;
        const int ow = p % pool.PW * pool.KW + q % pool.KW;
        if (pool.strips) return (ow * pool.height + oh * g.SH) * g.KW * C;
        return oh * g.SH * pitch() + ow * g.SW * C;
    }
};

// A filter's columns, divided into parts that fit a thread's registers.
struct Parts {
    int run, across, count;  // columns of a row of taps, parts of a row, parts in all

    __device__ Parts(const Pool &pool)
        : run(pool.run), across(run / (VECTORS * LANES)), count(pool.rows / ROWS * across) {}
    __device__ int row(int part) const { return part / across * ROWS; }
    __device__ int column(int part) const { return part % across * VECTORS * LANES; }
};

// ROWS x VECTORS registers of sums; in memory, rows are `pitch` elements apart.
struct Registers {
    lanes_t sum[ROWS][VECTORS];

    __device__ __forceinline__ void add(acc_t value, const acc_t *taps, int pitch) {
        UNROLL(int r = 0; r < ROWS; ++r, taps += pitch)
            UNROLL(int v = 0; v < VECTORS; ++v) sum[r][v] += value * load_lanes(taps + v * LANES);
    }
    __device__ __forceinline__ void add_to(acc_t *total, int pitch) const {
        UNROLL(int r = 0; r < ROWS; ++r, total += pitch)
            UNROLL(int v = 0; v < VECTORS; ++v)
                store_lanes(total + v * LANES, load_lanes(total + v * LANES) + sum[r][v]);
    }
};

// The first image of a block's share, which ends where the next block's begins.
__device__ inline int share(int images, unsigned block) {
    return int((int64)images * block / gridDim.x);
}

KERNEL conv2d_pool_filter_gradient(const T *__restrict__ dy, const T *__restrict__ y,
                                   const uint8 *__restrict__ argmax, const T *__restrict__ x,
                                   acc_t *__restrict__ partial, Window g, Pool pool, int images,
                                   int C, int F) {
    DYNAMIC_SHARED(acc_t, memory);
    const Canvas canvas{memory, g, pool, C};
    const Parts parts(pool);
    const int windows = pool.PH * pool.PW, places = pool.KH * pool.KW, pitch = canvas.tap_pitch();
    const int words = ceil_div(windows, 2 * BITS) * 2, columns = pool.rows * pool.run;
    acc_t *strips = memory + canvas.size();
    int *begin = reinterpret_cast<int *>(strips + pool.strips);  // (windows, places)
    int *passed = begin + windows * places;  // (words, F): windows with a gradient, a bit for each
    BLOCK_STRIDE(i, windows * places) begin[i] = canvas.place(i / places, i % places);
    canvas.clear();
    partial += (int64)blockIdx.x * F * (columns + 1);
    acc_t *bias = partial + F * columns;
    BLOCK_STRIDE(i, F * (columns + 1)) partial[i] = 0;
    for (int n = share(images, blockIdx.x); n < share(images, blockIdx.x + 1); ++n) {
        const int64 first = (int64)n * windows * F;
        __syncthreads();  // the canvas is cleared, or no longer read
        canvas.take(x + (int64)n * g.H * g.W * C);
        BLOCK_STRIDE(i, ceil_div(F, LANES)) {
            const int f = i * LANES;
            lanes_t sum = load_first(bias + f, F - f);
            for (int word = 0; word < words; ++word) {
                index_t bits = {};
                for (int b = 0; b < smaller(BITS, windows - word * BITS); ++b) {
                    const int64 at = first + (word * BITS + b) * F + f;
                    const lanes_t output = lanes_t(load_first(y + at, F - f));
                    const lanes_t gradient = lanes_t(load_first(dy + at, F - f));
                    bits |= output <= 0 ? index_t{} : index_t{} + (1 << b);
                    sum += output <= 0 ? lanes_t{} : gradient;
                }
                store_first_whole<acc_t>(passed + word * F + f, bits, F - f);
            }
            store_first(bias + f, sum, F - f);
        }
        __syncthreads();          // canvas and bits are complete
        if constexpr (LANES > 1)  // then a block has one thread
            if (pool.strips) canvas.cut(strips);
        const acc_t *pixels = pool.strips ? strips : memory;
        BLOCK_STRIDE(item, F * parts.count) {
            const int f = item / parts.count, part = item % parts.count;
            const int row = parts.row(part), column = parts.column(part);
            const acc_t *source = pixels + row * pitch + column;
            const T *value = dy + first + f;
            const uint8 *index = argmax + first + f;
            Registers sums = {};
            // Bit by bit, for a branch on each could not be predicted; the fewer words the better,
            // for neither can the end of one.
            for (int word = 0; word < words; word += 2) {
                const int *half = passed + word * F + f;
                for (uint64 bits = half[0] | (uint64)half[F] << BITS; bits; bits &= bits - 1) {
                    const int64 p = word * BITS + first_bit(bits);
                    sums.add(acc_t(value[p * F]), source + begin[p * places + index[p * F]], pitch);
                }
            }
            sums.add_to(partial + f * columns + row * pool.run + column, pool.run);
        }
    }
}

KERNEL conv2d_pool_input_gradient(const T *__restrict__ dy, const T *__restrict__ y,
                                  const uint8 *__restrict__ argmax, const acc_t *__restrict__ w,
                                  T *__restrict__ dx, Window g, Pool pool, int images, int C,
                                  int F) {
    DYNAMIC_SHARED(acc_t, memory);
    const Canvas canvas{memory, g, pool, C};
    const Parts parts(pool);
    const int windows = pool.PH * pool.PW, places = pool.KH * pool.KW, pitch = canvas.tap_pitch();
    const int columns = pool.rows * pool.run;
    for (int n = share(images, blockIdx.x); n < share(images, blockIdx.x + 1); ++n) {
        canvas.clear();
        for (int p = 0; p < windows; ++p) {
            const int64 first = ((int64)n * windows + p) * F;
            for (int q = 0; q < places; ++q) {
                __syncthreads();  // the canvas is clear; the last place met the same pixels
                acc_t *target = canvas.pixels + canvas.place(p, q);
                for (int f0 = 0; f0 < F; f0 += 64) {
                    uint64 bits = 0;  // the filters whose maximum is here and not clipped
                    for (int f = f0; f < smaller(f0 + 64, F); f += LANES) {
                        const lanes_t output = lanes_t(load_first(y + first + f, F - f));
                        const index_t index = load_first_whole<acc_t>(argmax + first + f, F - f);
                        bits |= lane_bits<acc_t>((index == q) & !(output <= 0)) << (f - f0);
                    }
                    BLOCK_STRIDE(part, parts.count) {
                        const int row = parts.row(part), column = parts.column(part);
                        const acc_t *source = w + row * pool.run + column;
                        Registers sums = {};
                        for (uint64 left = bits; left; left &= left - 1) {
                            const int64 f = f0 + first_bit(left);
                            sums.add(acc_t(dy[first + f]), source + f * columns, pool.run);
                        }
                        sums.add_to(target + row * pitch + column, pitch);
                    }
                }
            }
        }
        __syncthreads();  // the canvas is whole
        canvas.give(dx + (int64)n * g.H * g.W * C);
        __syncthreads();  // before the next image clears it
    }
}

// Filters (rows, length) as rows of `run` columns, with zeros.
KERNEL pad_filters(const T *__restrict__ w, acc_t *__restrict__ padded, int rows, int length,
                   int run) {
    GRID_STRIDE(row, rows) {
        for (int k = 0; k < run; ++k)
            padded[row * run + k] = k < length ? acc_t(w[row * length + k]) : acc_t(0);
    }
}

// dw (F, rows * length) and, unless it is null, db (F): the partial sums added up in order.
KERNEL sum_filters(const acc_t *__restrict__ partial, T *__restrict__ dw, T *__restrict__ db, int F,
                   int rows, int length, int run, int blocks) {
    const int taps = rows * length, columns = rows * run;
    GRID_STRIDE(item, (int64)F * (taps + 1)) {
        const int f = int(item / (taps + 1)), k = int(item - (int64)f * (taps + 1));
        const int row = k / length;
        const int64 from =
            k == taps ? (int64)F * columns + f : (int64)f * columns + row * run + k - row * length;
        acc_t sum = 0;
        for (int s = 0; s < blocks; ++s) sum += partial[(int64)s * F * (columns + 1) + from];
        if (k < taps)
            dw[(int64)f * taps + k] = T(sum);
        else if (db)
            db[f] = T(sum);
    }
}
