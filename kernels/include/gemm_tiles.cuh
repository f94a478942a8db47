// The GEMM of gemm.cuh for blocks of many threads: tiles of A and B in shared memory.
//
// For each BK-long step of k the block's threads copy a BM x BK tile of A and a BK x BN tile of B
// through the loaders; then each thread multiplies its micro-tile of TM x TN outputs, held in
// registers.
//
//   bytes    (BM + BN) * BK elements read per 2 * BM * BN * BK operations
//   geometry grid (ceil(M / BM), ceil(N / BN), any), THREADS threads
#pragma once

constexpr int TM = 4, TN = 4, THREADS = (BM / TM) * (BN / TN), SEGMENT = 4, PAD = 1;
// Blocks that a multiprocessor must hold: 64 registers a thread, in double twice that. Without it
// the compiler keeps to fewer registers on some architectures, and spills.
constexpr int BLOCKS = sizeof(acc_t) == 8 ? 2 : 4;
constexpr int MICRO_ROWS = BM / TM;

static_assert(BM % TM == 0 && BN % TN == 0, "micro-tiles must fill the tile");

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
                    load<K_STEP>(loader, first + row, k0 + column, end - column, destination);
                else
                    for (int i = 0; i < end - column; ++i) destination[i * K_STEP] = 0;
            } else {
                acc_t *destination = tile + row * K_STEP + column * OUTPUT_STEP;
                const int stop = smaller(end, valid);
                if (column < stop)
                    load<OUTPUT_STEP>(loader, k0 + row, first + column, stop - column, destination);
                for (int i = larger(stop, column); i < end; ++i)
                    destination[(i - column) * OUTPUT_STEP] = 0;
            }
        }
    }
};

// Adds depth rank-one updates to one micro-tile; a and b point at its first output.
template <int A_OUTPUT_STEP, int A_K_STEP, int B_K_STEP>
__device__ inline void multiply(acc_t (&sum)[TM][TN], const acc_t *a, const acc_t *b, int depth) {
    for (int k = 0; k < depth; ++k) {
        acc_t row[TN];
        UNROLL for (int j = 0; j < TN; ++j) row[j] = b[k * B_K_STEP + j];
        UNROLL for (int i = 0; i < TM; ++i) UNROLL for (int j = 0; j < TN; ++j) sum[i][j] +=
            a[i * A_OUTPUT_STEP + k * A_K_STEP] * row[j];
    }
}

// Tile (blockIdx.x, blockIdx.y) of the M x N product over k in [k_begin, k_end).
template <Rows A_ROWS, Rows B_ROWS, class A, class B, class Epilogue>
__device__ Block gemm(const A &a, const B &b, int M, int N, int k_begin, int k_end,
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
    const int m = threadIdx.x % MICRO_ROWS * TM, n = threadIdx.x / MICRO_ROWS * TN;
    const bool used = m0 + m < M && n0 + n < N;
    acc_t sum[TM][TN] = {};
    for (int k0 = k_begin; k0 < k_end; k0 += BK) {
        const int depth = smaller(BK, k_end - k0);
        TileA::fill(tile_a, a, m0, M, TM, k0, depth);
        TileB::fill(tile_b, b, n0, N, TN, k0, depth);
        __syncthreads();  // the tiles are whole
        if (used)
            multiply<A_OUTPUT_STEP, A_K_STEP, B_K_STEP>(sum, tile_a + m * A_OUTPUT_STEP, tile_b + n,
                                                        depth);
        __syncthreads();  // before the next step overwrites them
    }
    if (used) epilogue.store(m0 + m, n0 + n, sum, smaller(TM, M - m0 - m), smaller(TN, N - n0 - n));
    return {m0, smaller(m0 + BM, M), n0, smaller(n0 + BN, N)};
}
