// Convolution with 3 x 3 filters at stride 1 by Winograd's minimal filtering, and its gradients.
//
//   A tile of 2 x 2 outputs needs 16 products a channel and filter where its windows have 36 taps.
//   With d the 4 x 4 pixels under the tile's windows, g a filter of one channel, and
//
//         1  0 -1  0         1    0    0
//   B^T = 0  1  1  0    G = 1/2  1/2  1/2    A^T = 1  1  1  0
//         0 -1  1  0        1/2 -1/2  1/2          0  1 -1 -1
//         0  1  0 -1         0    0    1
//
//   forward          y  = A^T (sum over c of u . v) A      u = G g G^T, v = B^T d B
//   filter gradient  dg = G^T (sum over tiles of v . (A dy A^T)) G
//
//   where . multiplies point by point: for each of the 16 points a GEMM over tiles, channels and
//   filters. The input gradient is the forward convolution of dy with the filters turned over.
//   A value that is not finite reaches every output of the tiles that it is under.
//
//   A. Lavin, S. Gray: Fast Algorithms for Convolutional Neural Networks, 2015.
//
// shapes   x (N, H, W, C), y (N, OH, OW, F), transformed filters u (16, C, width); in shared memory
//          v (16, chunk, depth) and products (16, chunk, width) of a chunk of tiles; depth is C
//          rounded up to whole micro-tiles, width F to whole registers
// bytes    x up to four times, from cache; y once; u once a chunk
// geometry a block takes a chunk of tiles (the filter gradient: chunk after chunk of its share), a
//          thread micro-tiles of ROWS x up to 3 registers of one point's product
#include "dialect.cuh"
#include "maximum.cuh"
#include "window.cuh"

using lanes_t = Simd<acc_t>::type;
constexpr int LANES = Simd<acc_t>::LANES;
constexpr int POINTS = 16;
// Of a micro-tile. With 3 vectors its sums take 24 of AVX-512's 32 registers, 12 of AVX2's 16.
constexpr int ROWS = sizeof(lanes_t) == 64 ? 8 : 4;

// An image's tiles, how many of them a block takes at a time, and the rounded C and F.
struct Tiles { int rows, columns, chunk, depth, width; };

// From one point's matrix to the next one's: a cache line more than it has, for points a power of
// two apart would fall into the same few lines of a cache.
__device__ inline int64 pitch(int rows, int columns) { return (int64)rows * columns + 16; }

// ---- transforms of 4 x 4 points, one axis at a time ---------------------------------------------

template <class Axis> __device__ __forceinline__ void along_both(lanes_t (&p)[4][4], Axis axis) {
    UNROLL for (int j = 0; j < 4; ++j) axis(p[0][j], p[1][j], p[2][j], p[3][j]);
    UNROLL for (int i = 0; i < 4; ++i) axis(p[i][0], p[i][1], p[i][2], p[i][3]);
}
// B^T: of four pixels.
struct OfPixels {
    __device__ void operator()(lanes_t &a, lanes_t &b, lanes_t &c, lanes_t &d) const {
        const lanes_t sum = b + c, difference = c - b;
        a = a - c, d = b - d, b = sum, c = difference;
    }
};
// G: of three taps.
struct OfTaps {
    __device__ void operator()(lanes_t &a, lanes_t &b, lanes_t &c, lanes_t &d) const {
        const lanes_t even = (a + c) * acc_t(0.5), odd = b * acc_t(0.5);
        d = c, b = even + odd, c = even - odd;
    }
};
// A^T: to two outputs.
struct ToOutputs {
    __device__ void operator()(lanes_t &a, lanes_t &b, lanes_t &c, lanes_t &d) const {
        a = a + b + c, b = b - c - d;
    }
};
// A: of two outputs' gradients.
struct OfGradients {
    __device__ void operator()(lanes_t &a, lanes_t &b, lanes_t &c, lanes_t &d) const {
        d = -b, c = a - b, b = a + b;
    }
};
// G^T: to three taps' gradients.
struct ToTaps {
    __device__ void operator()(lanes_t &a, lanes_t &b, lanes_t &c, lanes_t &d) const {
        const lanes_t even = (b + c) * acc_t(0.5), odd = (b - c) * acc_t(0.5);
        a = a + even, b = odd, c = even + d;
    }
};

// ---- transforms of tiles ------------------------------------------------------------------------

// A tile, by the place of its first output.
struct Tile {
    int64 n;
    int h, w;

    __device__ Tile(Tiles tiles, int number) {
        const int across = tiles.columns, image = number / (tiles.rows * across);
        const int rest = number - image * tiles.rows * across, row = rest / across;
        n = image, h = row * 2, w = (rest - row * across) * 2;
    }
};

// Writes the points (16, chunk, length) of `count` tiles of images (N, H, W, C): the Transform of
// the EXTENT x EXTENT pixels from (-top, -left) of a tile's first output on, zero outside the
// image.
template <int EXTENT, class Transform>
__device__ void transform(const T *images, int H, int W, int C, int top, int left, Tiles tiles,
                          int first, int count, int length, acc_t *points) {
    const int64 step = pitch(tiles.chunk, length);
    BLOCK_STRIDE(t, count) {
        const Tile tile(tiles, first + t);
        const int h = tile.h - top, w = tile.w - left;
        const T *source = images + ((tile.n * H + h) * W + w) * C;
        for (int c = 0; c < length; c += LANES) {
            lanes_t p[4][4] = {};
            int count[EXTENT];  // of channels, none outside the image
            UNROLL for (int j = 0; j < EXTENT; ++j) count[j] =
                unsigned(w + j) < unsigned(W) ? C - c : 0;
            const T *row = source + c;
            UNROLL for (int i = 0; i < EXTENT; ++i, row += W * C) {
                const bool inside = unsigned(h + i) < unsigned(H);
                UNROLL for (int j = 0; j < EXTENT; ++j) {
                    p[i][j] = inside ? lanes_t(load_first(row + j * C, count[j])) : lanes_t{};
                    // The last two rows and columns are new to the tiles around.
                    if (i >= EXTENT - 2 && j >= EXTENT - 2) fetch_ahead(row + j * C);
                }
            }
            along_both(p, Transform());
            acc_t *to = points + t * length + c;
            UNROLL for (int i = 0; i < 4; ++i) UNROLL for (int j = 0; j < 4; ++j, to += step)
                store_lanes(to, p[i][j]);
        }
    }
}

// ---- products -----------------------------------------------------------------------------------

// Which index of operand A has its neighbours in memory.
enum class Neighbours { ROWS, K };

// c (ROWS, V vectors) = or += sum over k of a[row, k] * b[k, :], for so many rows; the others are
// any.
template <Neighbours NEIGHBOURS, int V>
__device__ __forceinline__ void multiply(const acc_t *a, int length, const acc_t *b, int width,
                                         int rows, int K, acc_t *c, bool add) {
    constexpr bool BY_ROW = NEIGHBOURS == Neighbours::K;
    const acc_t *row[ROWS];
    lanes_t sum[ROWS][V] = {};
    UNROLL for (int i = 0; i < ROWS; ++i) row[i] = a + (BY_ROW ? smaller(i, rows - 1) * length : i);
    if (!BY_ROW && add)  // only sums over tiles go on
        UNROLL for (int i = 0; i < ROWS; ++i) UNROLL for (int v = 0; v < V; ++v) sum[i][v] =
            load_lanes(c + i * width + v * LANES);
    for (int k = 0; k < K; ++k, b += width) {
        lanes_t column[V];
        UNROLL for (int v = 0; v < V; ++v) column[v] = load_lanes(b + v * LANES);
        UNROLL for (int i = 0; i < ROWS; ++i) UNROLL for (int v = 0; v < V; ++v) sum[i][v] +=
            (BY_ROW ? row[i][k] : a[i]) * column[v];
        if (!BY_ROW) a += length;
    }
    UNROLL for (int i = 0; i < ROWS; ++i) UNROLL for (int v = 0; v < V; ++v)
        store_lanes(c + i * width + v * LANES, sum[i][v]);
}

// A matrix for each point, row after row.
template <typename E> struct Matrices {
    E *data;
    int length;
    int64 step;

    __device__ Matrices(E *data, int rows, int length)
        : data(data), length(length), step(pitch(rows, length)) {}
};

// c (16, rows, width) = or += a (16, rows, K) times b (16, K, width)
template <Neighbours NEIGHBOURS>
__device__ void multiply(Matrices<const acc_t> a, Matrices<const acc_t> b, Matrices<acc_t> c,
                         int rows, int K, bool add) {
    const int width = c.length, needed = width / LANES, blocks = ceil_div(rows, ROWS);
    const bool by_three = needed == 3 || ceil_div(needed, 3) * 3 <= ceil_div(needed, 2) * 2;
    const int most = by_three ? 3 : 2, panels = ceil_div(needed, most);
    BLOCK_STRIDE(item, POINTS * panels * blocks) {
        const int panel = item / blocks, row = (item - panel * blocks) * ROWS;
        const int point = panel / panels, v = (panel - point * panels) * most;
        const acc_t *left =
            a.data + point * a.step + row * (NEIGHBOURS == Neighbours::K ? a.length : 1);
        const acc_t *right = b.data + point * b.step + v * LANES;
        acc_t *to = c.data + point * c.step + (int64)row * width + v * LANES;
        const int count = smaller(most, needed - v);
        if (count == 3)
            multiply<NEIGHBOURS, 3>(left, a.length, right, width, rows - row, K, to, add);
        else if (count == 2)
            multiply<NEIGHBOURS, 2>(left, a.length, right, width, rows - row, K, to, add);
        else
            multiply<NEIGHBOURS, 1>(left, a.length, right, width, rows - row, K, to, add);
    }
}

// ---- kernels ------------------------------------------------------------------------------------

// Gives take(tile, f, its 2 x 2 outputs) the convolution, a vector of filters from f on at a time.
template <class Take>
__device__ __forceinline__ void convolve(acc_t *points, const T *x, const acc_t *u, Window g,
                                         Tiles tiles, int count, int C, const Take &take) {
    acc_t *products = points + POINTS * pitch(tiles.chunk, tiles.depth);
    const int first = blockIdx.x * tiles.chunk, here = smaller(tiles.chunk, count - first);
    transform<4, OfPixels>(x, g.H, g.W, C, g.PH, g.PW, tiles, first, here, tiles.depth, points);
    __syncthreads();
    multiply<Neighbours::K>({points, tiles.chunk, tiles.depth}, {u, C, tiles.width},
                            {products, tiles.chunk, tiles.width}, here, C, false);
    __syncthreads();
    const int64 step = pitch(tiles.chunk, tiles.width);
    BLOCK_STRIDE(t, here) {
        for (int f = 0; f < tiles.width; f += LANES) {
            const acc_t *from = products + t * tiles.width + f;
            lanes_t p[4][4], value[2][2];
            UNROLL for (int i = 0; i < 4; ++i) UNROLL for (int j = 0; j < 4; ++j, from += step)
                p[i][j] = load_lanes(from);
            along_both(p, ToOutputs());
            UNROLL for (int i = 0; i < 2; ++i) UNROLL for (int j = 0; j < 2; ++j) value[i][j] =
                p[i][j];
            take(first + t, f, value);
        }
    }
}

// u (16, rows, width): of the filters (F, 3, 3, C), row c and column f, or, TURNED over for the
// input gradient, row f and column c; zero from the last column on.
KERNEL winograd_filters(const T *__restrict__ w, acc_t *__restrict__ u, int F, int C, int width,
                        int turned) {
    const int rows = turned ? F : C, columns = turned ? C : F;
    GRID_STRIDE(item, (int64)rows * (width / LANES)) {
        const int panel = int(item / rows), row = int(item - (int64)panel * rows);
        const int column = panel * LANES;
        lanes_t p[4][4] = {};
        UNROLL for (int i = 0; i < 3; ++i) UNROLL for (int j = 0; j < 3; ++j) {
            const int tap = turned ? 8 - i * 3 - j : i * 3 + j;
            if (turned) {
                p[i][j] =
                    lanes_t(load_first(w + ((int64)row * 9 + tap) * C + column, columns - column));
            } else {
                acc_t line[LANES];
                for (int l = 0; l < LANES; ++l)
                    line[l] = column + l < F ? acc_t(w[((int64)(column + l) * 9 + tap) * C + row])
                                             : acc_t(0);
                p[i][j] = load_lanes(line);
            }
        }
        along_both(p, OfTaps());
        UNROLL for (int i = 0; i < 4; ++i) UNROLL for (int j = 0; j < 4; ++j) store_lanes(
            u + (i * 4 + j) * pitch(rows, width) + (int64)row * width + column, p[i][j]);
    }
}

// y = the convolution, plus b unless it is null, clipped below at zero when relu is set.
KERNEL winograd_forward(const T *__restrict__ x, const acc_t *__restrict__ u,
                        const T *__restrict__ b, T *__restrict__ y, Window g, Tiles tiles,
                        int count, int C, int F, int relu) {
    DYNAMIC_SHARED(acc_t, memory);
    convolve(memory, x, u, g, tiles, count, C, [=](int tile, int f, lanes_t(&value)[2][2]) {
        const Tile at(tiles, tile);
        const lanes_t shift = b ? lanes_t(load_first(b + f, F - f)) : lanes_t{};
        T *to = y + ((at.n * g.OH + at.h) * g.OW + at.w) * F + f;
        UNROLL for (int i = 0; i < 2; ++i) UNROLL for (int j = 0; j < 2; ++j) {
            lanes_t sum = value[i][j] + shift;
            if (relu) sum = sum < 0 ? lanes_t{} : sum;
            fetch_ahead(to + (i * g.OW + j) * F);
            if (at.h + i < g.OH && at.w + j < g.OW)
                store_first(to + (i * g.OW + j) * F, sum, F - f);
        }
    });
}

// y, argmax (N, OH / 2, OW / 2, F) = the maximum over a tile of the convolution plus b, clipped
// below at zero, and where it lies.
KERNEL winograd_pool_forward(const T *__restrict__ x, const acc_t *__restrict__ u,
                             const T *__restrict__ b, T *__restrict__ y, uint8 *__restrict__ argmax,
                             Window g, Tiles tiles, int count, int C, int F) {
    DYNAMIC_SHARED(acc_t, memory);
    convolve(memory, x, u, g, tiles, count, C, [=](int tile, int f, lanes_t(&value)[2][2]) {
        const lanes_t shift = b ? lanes_t(load_first(b + f, F - f)) : lanes_t{};
        Maximum maximum(value[0][0] + shift);
        UNROLL for (int tap = 1; tap < 4; ++tap) maximum.meet(value[tap / 2][tap % 2] + shift, tap);
        const int64 out = (int64)tile * F + f;
        maximum.store(y + out, argmax + out, F - f, true);
    });
}

// Partial sums (blocks, 16, depth, width) over a block's share of the tiles.
KERNEL winograd_filter_gradient(const T *__restrict__ dy, const T *__restrict__ x,
                                acc_t *__restrict__ partial, Window g, Tiles tiles, int count,
                                int C, int F) {
    DYNAMIC_SHARED(acc_t, memory);
    acc_t *points = memory, *gradients = points + POINTS * pitch(tiles.chunk, tiles.depth);
    acc_t *sum = partial + blockIdx.x * POINTS * pitch(tiles.depth, tiles.width);
    const int begin = int((int64)count * blockIdx.x / gridDim.x);
    const int end = int((int64)count * (blockIdx.x + 1) / gridDim.x);
    for (int first = begin; first < end; first += tiles.chunk) {
        const int here = smaller(tiles.chunk, end - first);
        __syncthreads();  // the last chunk is no longer read
        transform<4, OfPixels>(x, g.H, g.W, C, g.PH, g.PW, tiles, first, here, tiles.depth, points);
        transform<2, OfGradients>(dy, g.OH, g.OW, F, 0, 0, tiles, first, here, tiles.width,
                                  gradients);
        __syncthreads();
        multiply<Neighbours::ROWS>({points, tiles.chunk, tiles.depth},
                                   {gradients, tiles.chunk, tiles.width},
                                   {sum, tiles.depth, tiles.width}, C, here, first > begin);
    }
}

// dw (F, 3, 3, C): the partial sums added up in order, and transformed.
KERNEL winograd_sum_filters(const acc_t *__restrict__ partial, T *__restrict__ dw, int F, int C,
                            int depth, int width, int blocks) {
    const int64 size = pitch(depth, width);
    GRID_STRIDE(item, (int64)C * (width / LANES)) {
        const int c = int(item / (width / LANES));
        const int f = int(item - (int64)c * (width / LANES)) * LANES;
        lanes_t p[4][4] = {};
        for (int s = 0; s < blocks; ++s)
            UNROLL for (int i = 0; i < 4; ++i) UNROLL for (int j = 0; j < 4; ++j) p[i][j] +=
                load_lanes(partial + (s * POINTS + i * 4 + j) * size + (int64)c * width + f);
        along_both(p, ToTaps());
        UNROLL for (int i = 0; i < 3; ++i) UNROLL for (int j = 0; j < 3; ++j) {
            acc_t line[LANES];
            store_lanes(line, p[i][j]);
            for (int l = 0; l < smaller(LANES, F - f); ++l)
                dw[((int64)(f + l) * 9 + i * 3 + j) * C + c] = T(line[l]);
        }
    }
}
