// Convolution with 3 x 3 filters at stride 1 by Winograd's algorithm, and its gradients.
//
//   A tile of 4 x 4 outputs takes 36 products per channel and filter instead of 144: pixels and
//   taps are evaluated as polynomials at a few points and multiplied there. With d the 6 x 6 pixels
//   under the tile's windows, g one channel of a filter, and B^T, G, A^T from the points 0, +-a,
//   +-b and infinity, where a = 3/4, b = 3/2 and q = a^2 b^2,
//
//         q   0  -a^2-b^2   0     1  0         1/q   0    0           1  1  1  1  1  0
//         0 -ab^2  -b^2     a     1  0         k     ka   ka^2        0  a -a  b -b  0
//   B^T = 0  ab^2  -b^2    -a     1  0     G = k    -ka   ka^2  A^T = 0 a^2 a^2 b^2 b^2 0
//         0 -a^2b  -a^2     b     1  0         l     lb   lb^2        0 a^3 -a^3 b^3 -b^3 1
//         0  a^2b  -a^2    -b     1  0         l    -lb   lb^2
//         0   q     0   -a^2-b^2  0  1         0     0    1
//
//   with k = 1 / (2 a^2 (a^2 - b^2)) and l = 1 / (2 b^2 (b^2 - a^2)):
//
//   forward          y  = A^T (sum over c of u . v) A      u = G g G^T, v = B^T d B
//   filter gradient  dg = G^T (sum over tiles of v . (A dy A^T)) G
//
//   where . multiplies point by point: for each of the 36 points a GEMM over tiles, channels and
//   filters. The input gradient is the forward convolution of dy with flipped filters. Errors are
//   about twice those of the plain sum; with the usual points 0, +-1, +-2 they would be eight
//   times as large. A value that is not finite reaches every output of each tile that reads it.
//
//   A. Lavin, S. Gray: Fast Algorithms for Convolutional Neural Networks, 2015.
//   B. Barabasz et al.: Error Analysis and Improving the Accuracy of Winograd Convolution for Deep
//   Neural Networks, 2020.
//
// shapes   x (N, H, W, C), y (N, OH, OW, F), transformed filters u (36, C, width); in shared memory
//          v (36, chunk, depth) and products (36, chunk, width) of a chunk of tiles; depth is C
//          rounded up to whole micro-tiles, width is F rounded up to whole registers
// bytes    x 2.25 times, from cache; y once; u once per chunk
// geometry forward: a block computes one chunk of tiles, for a part of the filters if there are few
//          chunks; filter gradient: a block adds up the chunks of its share of the tiles. A thread
//          computes micro-tiles of ROWS x up to 3 registers of one point's product
#include "dialect/lanes.cuh"
#include "pooling/maximum.cuh"
#include "norm/moments.cuh"
#include "common/window.cuh"
#include "conv/winograd_axes.cuh"

constexpr int POINTS = SIDE * SIDE;  // of a tile
// Rows of a micro-tile. With 3 registers of columns, its sums take 24 of AVX-512's 32 registers, 12
// of AVX2's 16. With one, it is TALL: more independent sums hide the latency of an addition.
constexpr int ROWS = sizeof(lanes_t) == 64 ? 8 : LANES > 1 ? 4 : 2;
constexpr int TALL = LANES > 1 ? 2 * ROWS : ROWS;
constexpr bool AVX2 = sizeof(lanes_t) == 32;

// The rows of micro-tiles, for matrices of this width.
__device__ inline int height(int width) { return width == LANES ? TALL : ROWS; }

// Rows and columns of an image's tiles, tiles of a chunk, and the rounded C and F.
struct Tiles { int rows, columns, chunk, depth, width; };

// Elements from one point's matrix to the next one's. A cache line of padding is added: at a power
// of two, all points would compete for the same few lines of a cache.
__device__ inline int64 pitch(int rows, int columns) { return (int64)rows * columns + 16; }

// ---- transforms of tiles ------------------------------------------------------------------------

// A tile: its image, and the position of its first output.
struct Tile {
    int64 n;
    int h, w;

    __device__ Tile(Tiles tiles, int number) {
        const int across = tiles.columns, image = number / (tiles.rows * across);
        const int rest = number - image * tiles.rows * across, row = rest / across;
        n = image, h = row * TILE, w = (rest - row * across) * TILE;
    }
    // Moves on to the next tile.
    __device__ void advance(Tiles tiles) {
        if ((w += TILE) == tiles.columns * TILE) w = 0, h += TILE;
        if (h == tiles.rows * TILE) h = 0, ++n;
    }
    // How many of its outputs are in the image.
    __device__ int outputs(const Window &g) const {
        return smaller(TILE, g.OH - h) * smaller(TILE, g.OW - w);
    }
};

// Writes the points (36, chunk, length) of `count` tiles of images (N, H, W, C). A tile's pixels
// begin at (-top, -left) from its first output, are zero outside the image, and are transformed
// along both axes. Rows from `count` to `rounded` become zero.
template <class Axis>
__device__ void transform(const T *images, int H, int W, int C, int top, int left, Tiles tiles,
                          int first, int count, int rounded, int length, acc_t *points) {
    constexpr int NEW = Axis::FROM - TILE;    // no earlier tile has read pixels from here on
    constexpr int AHEAD = 16384 / sizeof(T);  // twice as far as usual: a product comes in between
    const int64 step = pitch(tiles.chunk, length), line = (int64)W * C;
    BLOCK_STRIDE(t, rounded) {
        const Tile tile(tiles, first + smaller(t, count - 1));
        const int h = tile.h - top, w = tile.w - left;
        const T *source = images + ((tile.n * H + h) * W + w) * C;
        for (int c = 0; c < length; c += LANES) {
            int channels[Axis::FROM];  // of each column of pixels; 0 outside the image
            UNROLL(int j = 0; j < Axis::FROM; ++j)
                channels[j] = t < count && unsigned(w + j) < unsigned(W) ? C - c : 0;
            acc_t *const to = points + t * length + c;
            along_both<Axis>(
                [&](int i, int j) {
                    const T *pixel = source + i * line + j * C + c;
                    if (i >= NEW && j >= NEW) fetch_ahead(pixel, 1, AHEAD);
                    const bool inside = unsigned(h + i) < unsigned(H);
                    return inside ? lanes_t(load_first(pixel, channels[j])) : lanes_t{};
                },
                [&](int i, int j, lanes_t value) {
                    store_lanes(to + (i * SIDE + j) * step, value);
                });
        }
    }
}

// ---- products -----------------------------------------------------------------------------------

// The index of operand A whose neighbours are neighbours in memory.
enum class Neighbours { ROWS, K };

// c (R, V vectors) = or += sum over k of a[row, k] * b[k, :].
template <Neighbours NEIGHBOURS, int R, int V>
__device__ __forceinline__ void multiply(const acc_t *a, int length, const acc_t *b, int width,
                                         int K, acc_t *c, bool add) {
    constexpr bool BY_ROW = NEIGHBOURS == Neighbours::K;
    lanes_t sum[R][V] = {};
    if (!BY_ROW && add)  // only the filter gradient adds to earlier sums
        UNROLL(int i = 0; i < R; ++i)
            UNROLL(int v = 0; v < V; ++v) sum[i][v] = load_lanes(c + i * width + v * LANES);
    // Four rows share a pointer, since there are fewer registers for addresses than rows.
    const acc_t *row[(R + 3) / 4];
    UNROLL(int i = 0; i < R; i += 4) row[i / 4] = a + i * (BY_ROW ? length : 1);
    for (int k = 0; k < K; ++k, b += width) {
        lanes_t column[V];
        UNROLL(int v = 0; v < V; ++v) column[v] = in_register(load_lanes(b + v * LANES));
        UNROLL(int i = 0; i < R; ++i)
            UNROLL(int v = 0; v < V; ++v)
                sum[i][v] += (BY_ROW ? row[i / 4][i % 4 * length + k] : a[i]) * column[v];
        if (!BY_ROW) a += length;
    }
    UNROLL(int i = 0; i < R; ++i)
        UNROLL(int v = 0; v < V; ++v) store_lanes(c + i * width + v * LANES, sum[i][v]);
}

// A matrix for each point, row after row.
template <typename E> struct Matrices {
    E *data;
    int length;
    int64 step;

    __device__ Matrices(E *data, int rows, int length)
        : data(data), length(length), step(pitch(rows, length)) {}
};

// c (36, rows, width) = or += a (36, rows, K) times b (36, K, width), for the registers of columns
// from `first` to `end`. Rows are rounded up to whole micro-tiles, or to half of one if that is
// enough.
template <Neighbours NEIGHBOURS>
__device__ void multiply(Matrices<const acc_t> a, Matrices<const acc_t> b, Matrices<acc_t> c,
                         int rows, int K, int first, int end, bool add) {
    const int width = c.length, needed = end - first, tall = height(width);
    // As `vectors` of gemm_rows.cuh; but here the last panel has only what is left.
    const bool by_three =
        AVX2 ? needed % 3 != 1 : needed == 3 || ceil_div(needed, 3) * 3 <= ceil_div(needed, 2) * 2;
    const int most = by_three ? 3 : 2, panels = ceil_div(needed, most);
    const int blocks = ceil_div(rows, tall);
    BLOCK_STRIDE(item, POINTS * panels * blocks) {
        const int panel = item / blocks, row = (item - panel * blocks) * tall;
        const int point = panel / panels, v = first + (panel - point * panels) * most;
        const acc_t *left =
            a.data + point * a.step + row * (NEIGHBOURS == Neighbours::K ? a.length : 1);
        const acc_t *right = b.data + point * b.step + v * LANES;
        acc_t *to = c.data + point * c.step + (int64)row * width + v * LANES;
        const auto product = [&](auto height, auto registers) {
            multiply<NEIGHBOURS, decltype(height)::value, decltype(registers)::value>(
                left, a.length, right, width, K, to, add);
        };
        const auto by = [&](auto registers) {
            if (NEIGHBOURS == Neighbours::K && rows - row <= ROWS / 2)
                product(Number<ROWS / 2>(), registers);
            else
                product(Number<ROWS>(), registers);
        };
        const int count = smaller(most, end - v);
        if (count == 3)
            by(Number<3>());
        else if (count == 2)
            by(Number<2>());
        else if (tall == ROWS)
            by(Number<1>());
        else
            product(Number<TALL>(), Number<1>());
    }
}

// ---- kernels ------------------------------------------------------------------------------------

// The products, which follow the points in shared memory.
__device__ inline acc_t *products_of(acc_t *points, const Tiles &tiles) {
    return points + POINTS * pitch(tiles.chunk, tiles.depth);
}

// The first filter of the part that block `block` along y computes; parts are whole registers.
__device__ inline int first_filter(const Tiles &tiles, unsigned block) {
    return tiles.width / LANES * block / gridDim.y * LANES;
}

// Calls take(tile, f, outputs) with the 4 x 4 outputs of each tile, for a register of filters from
// f on at a time.
template <class Take>
__device__ __forceinline__ void convolve(acc_t *points, const T *x, const acc_t *u, Window g,
                                         Tiles tiles, int count, int C, const Take &take) {
    acc_t *products = products_of(points, tiles);
    const int first = blockIdx.x * tiles.chunk, here = smaller(tiles.chunk, count - first);
    const int tall = height(tiles.width);
    const int begin = first_filter(tiles, blockIdx.y), end = first_filter(tiles, blockIdx.y + 1);
    transform<OfPixels>(x, g.H, g.W, C, g.PH, g.PW, tiles, first, here, ceil_div(here, tall) * tall,
                        tiles.depth, points);
    __syncthreads();
    multiply<Neighbours::K>({points, tiles.chunk, tiles.depth}, {u, C, tiles.width},
                            {products, tiles.chunk, tiles.width}, here, C, begin / LANES,
                            end / LANES, false);
    __syncthreads();
    const int64 step = pitch(tiles.chunk, tiles.width);
    BLOCK_STRIDE(t, here) {
        for (int f = begin; f < end; f += LANES) {
            const acc_t *const from = products + t * tiles.width + f;
            lanes_t value[TILE][TILE];
            along_both<ToOutputs>(
                [&](int i, int j) { return load_lanes(from + (i * SIDE + j) * step); },
                [&](int i, int j, lanes_t output) { value[i][j] = output; });
            take(first + t, f, value);
        }
    }
}

// u (36, rows, width) of the filters (F, 3, 3, C): row c and column f or, flipped for the input
// gradient (`flipped`), row f and column c; zero past the last column. If `changed` (F) is given
// and zero for all filters, u is up to date already.
KERNEL winograd_filters(const T *__restrict__ w, const int *__restrict__ changed,
                        acc_t *__restrict__ u, int F, int C, int width, int flipped) {
    int stale = !changed;
    if (changed)
        for (int f = 0; f < F; ++f) stale |= changed[f];
    if (!stale) return;
    const int rows = flipped ? F : C, columns = flipped ? C : F;
    GRID_STRIDE(item, (int64)rows * (width / LANES)) {
        const int panel = int(item / rows), row = int(item - (int64)panel * rows);
        const int column = panel * LANES;
        const int64 step = pitch(rows, width);
        acc_t *const to = u + (int64)row * width + column;
        along_both<OfTaps>(
            [&](int i, int j) {
                const int tap = flipped ? 8 - i * 3 - j : i * 3 + j;
                if (flipped)
                    return lanes_t(
                        load_first(w + ((int64)row * 9 + tap) * C + column, columns - column));
                acc_t line[LANES];
                for (int l = 0; l < LANES; ++l)
                    line[l] = column + l < F ? acc_t(w[((int64)(column + l) * 9 + tap) * C + row])
                                             : acc_t(0);
                return load_lanes(line);
            },
            [&](int i, int j, lanes_t value) { store_lanes(to + (i * SIDE + j) * step, value); });
    }
}

// y = the convolution, plus b unless that is null, clipped below at zero if relu is set. Unless
// they are null, writes the moments of y; the tiles of a block are one chunk.
KERNEL winograd_forward(const T *__restrict__ x, const acc_t *__restrict__ u,
                        const T *__restrict__ b, T *__restrict__ y, acc_t *__restrict__ means,
                        acc_t *__restrict__ squares, int *__restrict__ counts, Window g,
                        Tiles tiles, int count, int C, int F, int relu) {
    DYNAMIC_SHARED(acc_t, memory);
    // A streaming store pays if it writes a whole cache line: a register of AVX2 is half a line.
    const bool past = sizeof(lanes_t) == 64 && past_caches<T>((int64)count * TILE * TILE, F);
    // A tile's pivot, mean and squares are stored over its first products, no longer needed.
    const int64 step = pitch(tiles.chunk, tiles.width);
    acc_t *const pivots = products_of(memory, tiles), *own = pivots + step, *spread = own + step;
    const int first = blockIdx.x * tiles.chunk;
    convolve(memory, x, u, g, tiles, count, C, [=](int tile, int f, lanes_t(&value)[TILE][TILE]) {
        const Tile at(tiles, tile);
        const lanes_t shift = b ? lanes_t(load_first(b + f, F - f)) : lanes_t{};
        T *to = y + ((at.n * g.OH + at.h) * g.OW + at.w) * F + f;
        UNROLL(int i = 0; i < TILE; ++i)
            UNROLL(int j = 0; j < TILE; ++j) {
                lanes_t &sum = value[i][j];
                sum += shift;
                if (relu) sum = sum < 0 ? lanes_t{} : sum;
                if (at.h + i < g.OH && at.w + j < g.OW)
                    write_first(to + (i * g.OW + j) * F, sum, F - f, past);
            }
        if (!means) return;
        const lanes_t pivot = value[0][0];
        const int outputs = at.outputs(g);
        const acc_t share = acc_t(1) / acc_t(outputs);
        // A sum per row: independent additions hide each other's latency.
        const auto sum = [&](auto whole, const auto &of) {
            lanes_t sums[TILE] = {};
            UNROLL(int i = 0; i < TILE; ++i)
                UNROLL(int j = 0; j < TILE; ++j) {
                    const bool inside = at.h + i < g.OH && at.w + j < g.OW;
                    if (decltype(whole)::value || inside) sums[i] += of(value[i][j] - pivot);
                }
            return sums[0] + sums[1] + (sums[2] + sums[3]);
        };
        lanes_t mean, square;
        const auto both = [&](auto whole) {
            mean = sum(whole, [=](lanes_t d) { return d * share; });
            square = sum(whole, [&](lanes_t d) { return (d - mean) * (d - mean); });
        };
        if (outputs == TILE * TILE)
            both(Number<1>());
        else
            both(Number<0>());
        const int64 place = (int64)(tile - first) * tiles.width + f;
        store_lanes(pivots + place, pivot);
        store_lanes(own + place, mean);
        store_lanes(spread + place, square);
    });
    if (!means) return;
    __syncthreads();  // the moments of all tiles are written
    const int begin = first_filter(tiles, blockIdx.y), here = smaller(tiles.chunk, count - first);
    const int end = smaller(first_filter(tiles, blockIdx.y + 1), F);
    for_channels(end - begin, [&](int channel, auto width) {
        constexpr int V = decltype(width)::value;
        const int f = begin + channel;
        Moments<V> moments(pivots + f);
        Tile at(tiles, first);
        for (int t = 0; t < here; ++t, at.advance(tiles)) {
            const int64 place = (int64)t * tiles.width + f;
            acc_t mean[V];
            LANE_LOOP(v, V) mean[v] = pivots[place + v] - moments.pivot[v] + own[place + v];
            moments.merge(at.outputs(g), mean, spread + place);
        }
        moments.store(means, squares, counts, blockIdx.x, F, f);
    });
}

// y (N, OH / 2, OW / 2, F) = the maxima of 2 x 2 outputs of the convolution plus b, clipped below
// at zero; argmax is their place among the four.
KERNEL winograd_pool_forward(const T *__restrict__ x, const acc_t *__restrict__ u,
                             const T *__restrict__ b, T *__restrict__ y, uint8 *__restrict__ argmax,
                             Window g, Tiles tiles, int count, int C, int F) {
    DYNAMIC_SHARED(acc_t, memory);
    convolve(memory, x, u, g, tiles, count, C, [=](int tile, int f, lanes_t(&value)[TILE][TILE]) {
        const lanes_t shift = b ? lanes_t(load_first(b + f, F - f)) : lanes_t{};
        const Tile at(tiles, tile);
        const int PH = g.OH / 2, PW = g.OW / 2, h = at.h / 2, w = at.w / 2;
        UNROLL(int i = 0; i < TILE; i += 2)
            UNROLL(int j = 0; j < TILE; j += 2) {
                if (h + i / 2 >= PH || w + j / 2 >= PW) continue;
                Maximum maximum(as_stored(value[i][j] + shift));
                UNROLL(int tap = 1; tap < 4; ++tap)
                    maximum.meet(as_stored(value[i + tap / 2][j + tap % 2] + shift), tap);
                const int64 out = ((at.n * PH + h + i / 2) * PW + w + j / 2) * F + f;
                maximum.store(y + out, argmax + out, F - f, true);
            }
    });
}

// Partial sums (blocks, 36, depth, width) over a block's share of the tiles.
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
        transform<OfPixels>(x, g.H, g.W, C, g.PH, g.PW, tiles, first, here, here, tiles.depth,
                            points);
        transform<OfGradients>(dy, g.OH, g.OW, F, 0, 0, tiles, first, here, here, tiles.width,
                               gradients);
        __syncthreads();
        multiply<Neighbours::ROWS>(
            {points, tiles.chunk, tiles.depth}, {gradients, tiles.chunk, tiles.width},
            {sum, tiles.depth, tiles.width}, C, here, 0, tiles.width / LANES, first > begin);
    }
}

// dw (F, 3, 3, C): the partial sums added up in order, and transformed.
KERNEL winograd_sum_filters(const acc_t *__restrict__ partial, T *__restrict__ dw, int F, int C,
                            int depth, int width, int blocks) {
    const int64 size = pitch(depth, width);
    GRID_STRIDE(item, (int64)C * (width / LANES)) {
        const int c = int(item / (width / LANES));
        const int f = int(item - (int64)c * (width / LANES)) * LANES;
        along_both<ToTaps>(
            [&](int i, int j) {
                lanes_t sum = {};
                for (int s = 0; s < blocks; ++s)
                    sum += load_lanes(partial + (s * POINTS + i * SIDE + j) * size +
                                      (int64)c * width + f);
                return sum;
            },
            [&](int i, int j, lanes_t value) {
                acc_t line[LANES];
                store_lanes(line, value);
                for (int l = 0; l < smaller(LANES, F - f); ++l)
                    dw[((int64)(f + l) * 9 + i * 3 + j) * C + c] = T(line[l]);
            });
    }
}
