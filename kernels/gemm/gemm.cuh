// The one GEMM: C[m, n] = sum over k of A[m, k] * B[k, n], for dense layers and convolutions.
//
// A *loader* presents an operand as rows of elements, which run either along the operand's output
// index (m or n) or along the reduction index k. What row() returns serves all columns of the row.
//
//   cpu    load(row(r), column(c), count, out) hands `count` columns to `out`, in runs that are
//          contiguous in memory
//   cuda   at() gives the address of PER_COPY columns of a row; see gemm_stages.cuh
//
// Micro-tiles of TM rows of C are summed up in registers. An *epilogue* takes each finished one:
// store(m, n, tile, rows, columns), of which only `rows` and `columns` are part of C.
//
//   cuda   gemm_fma.cuh: tiles of both operands in shared memory, micro-tiles per thread
//          gemm_mma.cuh: the same on tensor cores, with a PRECISION: tf32, bf16 or fp16
//   cpu    gemm_rows.cuh: operand A read in place, SIMD registers along n
#pragma once

#include "dialect/lanes.cuh"
#include "pooling/maximum.cuh"  // for epilogues that pool
#include "pooling/unpool.cuh"

// The tile of a block: the runtime passes those of the table in tiles.py, editors see these.
#ifndef BM
#define BM 64
#define BN 64
#define BK 16
#endif

enum class Rows { ALONG_OUTPUT, ALONG_K };

// Addresses of rows are computed so many at a time (gemm_rows.cuh); arrays of them are padded by
// it.
constexpr int SLACK = 8;

// The type of stored sums: T, or acc_t if there are several parts of k.
#ifndef TYPE_sum_t
#define TYPE_sum_t TYPE_T
#endif
using sum_t = TYPE_sum_t;

// The rows and columns of C that a block has computed, and whether it has given them to the
// epilogue: of the blocks of parts of k the last one to finish does.
struct Block {
    int m0, m1, n0, n1;
    bool stored;
};

// The blocks of a product: along m, along n, and those that share neither outputs nor k.
template <class BlockTile> struct BlockAt;
struct Blocks {
    int x, y, z;

    __device__ int count() const { return x * y * z; }
    template <class BlockTile> __device__ BlockAt<BlockTile> at(int number, int before) const {
        if (before < 0) __builtin_unreachable();  // known where it is asked
        return {number % x, number / x % y, number / x / y, *this, before};
    }
};

// A block's place among those of its product, and the type of its tile. In a launch of two
// products, blocks are counted along x, and there are so many before those of this one; else -1.
template <class BlockTile> struct BlockAt {
    int x, y, z;
    Blocks all;
    int before;
};

// The range of k that a block sums over: part `split` of K. Each part has length `share`, the last
// one the rest.
struct Share {
    int begin, end;
    __device__ Share(int K, int share, int split)
        : begin(split * share), end(begin + smaller(share, K - begin)) {}
};

// A division of k in parts. The last block of a tile adds up the sums of its parts: gemm_parts.cuh.
// A block's z counts parts first. On `cpu` there is always one part.
struct Parts {
    acc_t *sums;   // of each part and block
    int *arrived;  // blocks that have arrived, of each tile; zero before and after
    int count;
};
constexpr Parts ALL_OF_K = {nullptr, nullptr, 1};

// Where a product stores the sums over k of an operand's outputs, if not null; its rows must run
// along k. On `cpu` these sums are another launch.
enum class Operand { A, B };
template <Operand OF, typename E> struct SumsOverK { E *to; };
struct NoSums {};

#if defined(__CUDACC__)
#include "gemm/gemm_stages.cuh"
#include "gemm/gemm_parts.cuh"
#include "gemm/sums_over_k.cuh"
#ifdef TYPE_PRECISION
#include "gemm/gemm_mma.cuh"
#else
#include "gemm/gemm_fma.cuh"
#endif
#include "gemm/epilogues_threads.cuh"

#else
#include "gemm/gemm_rows.cuh"

#include "gemm/epilogues_lanes.cuh"
#endif

// This block, in a launch of one product.
__device__ inline BlockAt<FirstTile> this_block() {
    return {int(blockIdx.x),
            int(blockIdx.y),
            int(blockIdx.z),
            {int(gridDim.x), int(gridDim.y), int(gridDim.z)},
            -1};
}

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

    // For gemm_stages.cuh.
    __device__ int segment(int c) const { return c; }
    __device__ int64 step(int n) const { return n * stride; }
    __device__ void advance(const T *&row, int64 step) const { row += step; }
    __device__ void advance(int &segment, int n) const { segment += n; }
    __device__ bool at(const T *row, int segment, bool inside, const T *&from) const {
        from = row + segment;
        return inside;
    }

    // For gemm_rows.cuh: a row is one run.
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

// y[m, n] = value: a gradient, or a partial sum that is added up in a fixed order afterwards.
template <typename E> struct Plain {
    E *y;
    int64 stride;

    template <int ROWS, int V>
    __device__ __forceinline__ void store(int m, int n, const lanes_t (&tile)[ROWS][V], int rows,
                                          int columns) const {
        UNROLL(int i = 0; i < ROWS; ++i)
            if (i < rows) store_row(y + (m + i) * stride + n, tile[i], columns);
    }
    template <int ROWS, int V>
    __device__ __forceinline__ void load(int m, int n, lanes_t (&tile)[ROWS][V], int rows,
                                         int columns) const {
        UNROLL(int i = 0; i < ROWS; ++i)
            UNROLL(int v = 0; v < V; ++v)
                if (i < rows)
                    tile[i][v] =
                        load_first(y + (m + i) * stride + n + v * LANES, columns - v * LANES);
    }
};
