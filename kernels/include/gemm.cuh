// The one GEMM: C[m, n] = sum over k of A[m, k] * B[k, n], for dense layers and convolutions.
//
// A *loader* presents an operand as rows whose columns are copied in segments, so that index
// arithmetic is paid once a segment:   load(row(r), column(c), count, out).   What row() and
// column() give may be kept for other segments. It hands `out` runs of neighbours in memory, and
// how they get to their destination is the business of `out`: see Converted. Its rows run either
// along the operand's output index (m or n) or along the reduction index k.
//
// Micro-tiles of TM rows of C are summed up in registers, and an *epilogue* takes each when it is
// whole:   store(m, n, tile, rows, columns)   of which so many rows and columns are part of C.
//
//   cuda         gemm_tiles.cuh: tiles of both operands in shared memory, a micro-tile a thread
//                gemm_mma.cuh: on tensor cores, with a PRECISION: tf32, bf16 or fp16
//   cpu          gemm_rows.cuh: operand A read where it lies, SIMD registers along n
#pragma once

#include "lanes.cuh"
#include "maximum.cuh"

// The tile of a block; the runtime passes its table's figures, editors get these.
#ifndef BM
#define BM 64
#define BN 64
#define BK 16
#endif

enum class Rows { ALONG_OUTPUT, ALONG_K };

// Addresses of rows are made so many at a time (gemm_rows.cuh): arrays of them have that to spare.
constexpr int SLACK = 8;

// The rows and columns of C that a block has computed.
struct Block { int m0, m1, n0, n1; };

// Puts what a loader copies to elements STEP apart.
template <int STEP> struct Converted {
    acc_t *out;

    // The next `length` elements: the source's from `begin` to `end`, and zeros around them.
    __device__ __forceinline__ void run(const T *source, int begin, int end, int length) {
        copy_between<STEP>(out, source, begin, end, length);
        out += length * STEP;
    }
};

// Copies columns [column, column + count) of a row to elements STEP apart.
template <int STEP, class Loader>
__device__ inline void load(const Loader &loader, int row, int column, int count, acc_t *out) {
    loader.load(loader.row(row), loader.column(column), count, Converted<STEP>{out});
}

#if defined(__CUDACC__)
// The rows of an M x N product that fall to this block: of all columns, where gridDim.y is 1.
struct BlockRows {
    int begin, end;
    __device__ explicit BlockRows(int M) : begin(blockIdx.x * BM), end(smaller(begin + BM, M)) {}
};
#endif

#if defined(TYPE_PRECISION)
#include "gemm_mma.cuh"
#elif defined(__CUDACC__)
#include "gemm_tiles.cuh"
#else
#include "gemm_rows.cuh"
#endif

// ---- loaders and epilogues ---------------------------------------------------------------------

// A matrix in memory, rows `stride` elements apart.
struct Matrix {
    const T *data;
    int64 stride;

    __device__ const T *row(int r) const { return data + r * stride; }
    __device__ int column(int c) const { return c; }
    template <class Out> __device__ void load(const T *row, int column, int count, Out out) const {
        fetch_ahead(row + column);
        out.run(row + column, 0, count, count);
    }

    // What gemm_rows.cuh asks: a row is one run.
    static constexpr bool PLAIN = true;
    struct Walk {
        const T *row;
        int64 stride;
        bool next(int count, const T **start) {
            for (int i = 0; i < count; ++i, row += stride) start[i] = row;
            return true;
        }
    };
    Walk walk(int row) const { return {data + row * stride, stride}; }
    int run() const { return 1 << 30; }
    int64 offset(int column) const { return column; }
};

// What BiasRelu hands its values to, a register of columns at a time, from n on: nothing.
struct Nothing {
    __device__ void operator()(int, const lanes_t (&)[TM], int) const {}
};

// y[m, n] = value + bias[n], clipped below at zero when relu is set; bias may be null.
template <class Taker = Nothing> struct BiasRelu {
    T *y;
    const T *bias;
    int64 stride;
    int relu;
    bool past;  // past_caches of y
    Taker take;

    template <int V>
    __device__ __forceinline__ void store(int m, int n, const lanes_t (&tile)[TM][V], int rows,
                                          int columns) const {
        const bool past = this->past;
        UNROLL for (int v = 0; v < V; ++v) {
            const int count = columns - v * LANES;
            const lanes_t shift =
                bias ? lanes_t(load_first(bias + n + v * LANES, count)) : lanes_t{};
            T *to = y + m * stride + n + v * LANES;
            const bool whole = LANES > 1 && rows == TM && count >= LANES;  // most are
            lanes_t value[TM];
            UNROLL for (int i = 0; i < TM; ++i, to += stride) {
                value[i] = tile[i][v] + shift;
                if (relu) value[i] = value[i] < 0 ? lanes_t{} : value[i];
                if (whole && past)
                    write_first(to, value[i], LANES, past);
                else if (whole)
                    store_first(to, value[i], LANES);
                else if (i < rows)
                    store_first(to, value[i], count);
            }
            take(n + v * LANES, value, rows);
        }
    }
};

// y[window, n] = the maximum over the window's pixels of value + bias[n], clipped below at zero;
// argmax is where it lies. The rows m are pixels in the order of their windows.
struct BiasPoolRelu {
    T *y;
    uint8 *argmax;
    const T *bias;
    int64 stride;
    int taps;  // pixels of a window, 2 or 4

    template <int V>
    __device__ void store(int m, int n, const lanes_t (&tile)[TM][V], int rows, int columns) const {
        if (taps == 4)
            pool<4>(m / 4, n, tile, rows / 4, columns);
        else
            pool<2>(m / 2, n, tile, rows / 2, columns);
    }

    template <int TAPS, int V>
    __device__ __forceinline__ void pool(int window, int n, const lanes_t (&tile)[TM][V],
                                         int windows, int columns) const {
        UNROLL for (int v = 0; v < V; ++v) {
            const int count = columns - v * LANES;
            const lanes_t shift =
                bias ? lanes_t(load_first(bias + n + v * LANES, count)) : lanes_t{};
            UNROLL for (int i = 0; i < TM / TAPS; ++i) {
                if (i > 0 && i >= windows) break;  // a tile has at least one
                Maximum maximum(as_stored(tile[i * TAPS][v] + shift));
                UNROLL for (int tap = 1; tap < TAPS; ++tap)
                    maximum.meet(as_stored(tile[i * TAPS + tap][v] + shift), tap);
                const int64 out = (int64)(window + i) * stride + n + v * LANES;
                maximum.store(y + out, argmax + out, count, true);
            }
        }
    }
};

// y[m, n] = value: a gradient, or a partial sum to be added up in a fixed order afterwards.
template <typename E> struct Plain {
    E *y;
    int64 stride;

    template <int ROWS, int V>
    __device__ __forceinline__ void store(int m, int n, const lanes_t (&tile)[ROWS][V], int rows,
                                          int columns) const {
        UNROLL for (int i = 0; i < ROWS; ++i) UNROLL for (int v = 0; v < V; ++v) if (i < rows)
            store_first(y + (m + i) * stride + n + v * LANES, tile[i][v], columns - v * LANES);
    }
    template <int ROWS, int V>
    __device__ __forceinline__ void load(int m, int n, lanes_t (&tile)[ROWS][V], int rows,
                                         int columns) const {
        UNROLL for (int i = 0; i < ROWS; ++i) UNROLL for (int v = 0; v < V; ++v) if (i < rows)
            tile[i][v] = load_first(y + (m + i) * stride + n + v * LANES, columns - v * LANES);
    }
};
