// The one GEMM: C[m, n] = sum over k of A[m, k] * B[k, n], for dense layers and convolutions.
//
// A block computes a BM x BN tile of C. For each BK-long step of k the block's threads copy a tile
// of A and a tile of B to shared memory through *loaders*, then each thread multiplies its
// micro-tiles of TM x TN outputs, held in registers, and at the end an *epilogue* takes the values.
//
//   bytes    (BM + BN) * BK elements read per 2 * BM * BN * BK operations
//   geometry grid (ceil(M / BM), ceil(N / BN), any), THREADS threads
//   cuda     one micro-tile a thread, TM x TN scalars
//   cpu      one thread a block that owns every micro-tile of it, TN wide in SIMD registers; the
//            tile in "shared memory" is then what BLAS calls a packed panel
//
// A loader presents a matrix as rows whose columns are copied in segments, so that index arithmetic
// is paid once a segment:   load<step of the destination>(row, column, count, destination).
// Its rows run either along the operand's output index (m or n) or along the reduction index k.
#pragma once

#include "dialect.cuh"

// The tile of a block; the runtime passes its table's figures, editors get these.
#ifndef BM
#define BM 64
#define BN 64
#define BK 16
#endif

enum class Rows { ALONG_OUTPUT, ALONG_K };

using lanes_t = Simd<acc_t>::type;
constexpr int LANES = Simd<acc_t>::LANES;
#ifdef FULL_BLOCKS
constexpr int TM = 4, TN = 4, THREADS = (BM / TM) * (BN / TN), SEGMENT = 4, PAD = 1;
// Blocks that a multiprocessor must hold: 64 registers a thread, in double twice that. Without it
// the compiler keeps to fewer registers on some architectures, and spills.
constexpr int BLOCKS = sizeof(acc_t) == 8 ? 2 : 4;
#else
// TM * TN / LANES accumulators fit the registers: 16 of AVX-512's 32, 8 of AVX2's 16.
constexpr int TM = REGISTER_BYTES == 64 ? 8 : 4, TN = 2 * LANES, THREADS = 1;
// A segment is a whole tile row. Padding by a cache line keeps rows out of one cache set.
constexpr int SEGMENT = BK > BN ? (BK > BM ? BK : BM) : (BN > BM ? BN : BM), PAD = 16;
#endif
constexpr int MICRO_ROWS = BM / TM, MICRO_COLUMNS = BN / TN;
constexpr int MICRO_TILES = MICRO_ROWS * MICRO_COLUMNS / THREADS;

static_assert(BM % TM == 0 && BN % TN == 0 && TN % LANES == 0, "micro-tiles must fill the tile");
static_assert(MICRO_TILES * THREADS == MICRO_ROWS * MICRO_COLUMNS, "threads must share evenly");

// One operand's tile in shared memory: EXTENT outputs by BK steps of k, element (output, k) at
// output * OUTPUT_STEP + k * K_STEP.
template <Rows ROWS, int EXTENT, int OUTPUT_STEP, int K_STEP> struct Tile {
    // Copies outputs [first, limit) and k in [k0, k0 + depth); outputs past the limit become zero
    // up to a whole micro-tile, and those are all that multiply() reads.
    template <class Loader>
    static __device__ void fill(acc_t *tile, const Loader &loader, int first, int limit, int micro,
                                int k0, int depth) {
        const int valid = smaller(EXTENT, limit - first);
        const int used = smaller(EXTENT, ceil_div(valid, micro) * micro);
        const int rows = ROWS == Rows::ALONG_OUTPUT ? used : depth;
        const int columns = ROWS == Rows::ALONG_OUTPUT ? depth : used;
        const int segments = ceil_div(columns, SEGMENT);
        BLOCK_STRIDE(item, rows * segments) {
            const int row = item / segments, column = item % segments * SEGMENT;
            const int end = smaller(column + SEGMENT, columns);
            if (ROWS == Rows::ALONG_OUTPUT) {
                acc_t *destination = tile + row * OUTPUT_STEP + column * K_STEP;
                if (row < valid)
                    loader.template load<K_STEP>(first + row, k0 + column, end - column,
                                                 destination);
                else
                    for (int i = 0; i < end - column; ++i) destination[i * K_STEP] = 0;
            } else {
                acc_t *destination = tile + row * K_STEP + column * OUTPUT_STEP;
                const int stop = smaller(end, valid);
                if (column < stop)
                    loader.template load<OUTPUT_STEP>(k0 + row, first + column, stop - column,
                                                      destination);
                for (int i = larger(stop, column); i < end; ++i)
                    destination[(i - column) * OUTPUT_STEP] = 0;
            }
        }
    }
};

// Adds depth rank-one updates to one micro-tile; a and b point at its first output.
template <int A_OUTPUT_STEP, int A_K_STEP, int B_K_STEP>
__device__ inline void multiply(lanes_t (&sum)[TM][TN / LANES], const acc_t *a, const acc_t *b,
                                int depth) {
    lanes_t c[TM][TN / LANES];
#pragma unroll
    for (int i = 0; i < TM; ++i)
#pragma unroll
        for (int j = 0; j < TN / LANES; ++j) c[i][j] = sum[i][j];
    for (int k = 0; k < depth; ++k) {
        lanes_t row[TN / LANES];
#pragma unroll
        for (int j = 0; j < TN / LANES; ++j) row[j] = load_lanes(b + k * B_K_STEP + j * LANES);
#pragma unroll
        for (int i = 0; i < TM; ++i)
#pragma unroll
            for (int j = 0; j < TN / LANES; ++j)
                c[i][j] += a[i * A_OUTPUT_STEP + k * A_K_STEP] * row[j];
    }
#pragma unroll
    for (int i = 0; i < TM; ++i)
#pragma unroll
        for (int j = 0; j < TN / LANES; ++j) sum[i][j] = c[i][j];
}

// Tile (blockIdx.x, blockIdx.y) of the M x N product over k in [k_begin, k_end).
template <Rows A_ROWS, Rows B_ROWS, class A, class B, class Epilogue>
__device__ void gemm(const A &a, const B &b, int M, int N, int k_begin, int k_end,
                     const Epilogue &epilogue) {
    constexpr bool A_BY_OUTPUT = A_ROWS == Rows::ALONG_OUTPUT;
    constexpr int A_OUTPUT_STEP = A_BY_OUTPUT ? BK + PAD : 1;
    constexpr int A_K_STEP = A_BY_OUTPUT ? 1 : BM + PAD, B_K_STEP = BN + PAD;
    // Lanes read B along n, so its tile is k-major whichever way its loader runs.
    using TileA = Tile<A_ROWS, BM, A_OUTPUT_STEP, A_K_STEP>;
    using TileB = Tile<B_ROWS, BN, 1, B_K_STEP>;
    __shared__ acc_t tile_a[A_BY_OUTPUT ? BM * A_OUTPUT_STEP : BK * A_K_STEP];
    __shared__ acc_t tile_b[BK * B_K_STEP];

    const int m0 = blockIdx.x * BM, n0 = blockIdx.y * BN;
    lanes_t sum[MICRO_TILES][TM][TN / LANES] = {};
    for (int k0 = k_begin; k0 < k_end; k0 += BK) {
        const int depth = smaller(BK, k_end - k0);
        TileA::fill(tile_a, a, m0, M, TM, k0, depth);
        TileB::fill(tile_b, b, n0, N, TN, k0, depth);
        __syncthreads();  // the tiles are whole
#pragma unroll
        for (int t = 0; t < MICRO_TILES; ++t) {
            // Rows vary fastest: on cpu the panel of B then stays in the first-level cache.
            const int micro = threadIdx.x + t * THREADS;
            const int m = micro % MICRO_ROWS * TM, n = micro / MICRO_ROWS * TN;
            if (m0 + m < M && n0 + n < N)
                multiply<A_OUTPUT_STEP, A_K_STEP, B_K_STEP>(sum[t], tile_a + m * A_OUTPUT_STEP,
                                                            tile_b + n, depth);
        }
        __syncthreads();  // before the next step overwrites them
    }
#pragma unroll
    for (int t = 0; t < MICRO_TILES; ++t) {
        const int micro = threadIdx.x + t * THREADS;
        const int m = m0 + micro % MICRO_ROWS * TM, n = n0 + micro / MICRO_ROWS * TN;
#pragma unroll
        for (int i = 0; i < TM; ++i) {
            if (m + i >= M || n >= N) continue;
            acc_t row[TN];
#pragma unroll
            for (int j = 0; j < TN / LANES; ++j) store_lanes(row + j * LANES, sum[t][i][j]);
            epilogue.store(m + i, n, row, smaller(TN, N - n));
        }
    }
}

// ---- loaders and epilogues ---------------------------------------------------------------------

// A matrix in memory, rows `stride` elements apart.
struct Matrix {
    const T *data;
    int64 stride;

    template <int STEP> __device__ void load(int row, int column, int count, acc_t *out) const {
        const T *source = data + row * stride + column;
        for (int i = 0; i < count; ++i) out[i * STEP] = acc_t(source[i]);
    }
};

// y[m, n] = value + bias[n], clipped below at zero when relu is set; bias may be null.
struct BiasRelu {
    T *y;
    const T *bias;
    int64 stride;
    int relu;

    __device__ void store(int m, int n, acc_t (&row)[TN], int count) const {
        T *out = y + m * stride + n;
        if (bias)
            FIRST_LANES(j, TN, count) row[j] += acc_t(bias[n + j]);
        if (relu)
            LANE_LOOP(j, TN) row[j] = row[j] < 0 ? acc_t(0) : row[j];
        FIRST_LANES(j, TN, count) out[j] = T(row[j]);
    }
};

// y[m, n] = value: a gradient, or a partial sum to be added up in a fixed order afterwards.
template <typename E> struct Plain {
    E *y;
    int64 stride;

    __device__ void store(int m, int n, acc_t (&row)[TN], int count) const {
        E *out = y + m * stride + n;
        FIRST_LANES(j, TN, count) out[j] = E(row[j]);
    }
};
