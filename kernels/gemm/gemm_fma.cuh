// The one GEMM without tensor cores: one fused multiply-add per product.
//
// A block computes BM x BN outputs, a warp WARP_M x WARP_N of them, a lane micro-tiles of 4 x 4.
// Of each operand it reads 4 x DEPTH elements at a time, in accesses of at most 16 bytes.
//
//   bytes    (BM + BN) * BK elements read per 2 * BM * BN * BK operations
//   shared   for floats and 8 x 8 outputs, a lane reads 4 times 16 bytes for 64 fma
//   geometry grid (ceil(M / BM), ceil(N / BN), any), THREADS threads
//   lanes    LANES_N of them side by side along n, the others along m. Lanes that differ in the
//            lowest bit read the same rows of A, and in the next bit the same columns of B: so
//            shared memory serves two groups of eight at once ("shared_conflicts" in
//            bench/results/profile-*.json)
#pragma once

constexpr int DEPTH = UNIT < 4 ? UNIT : 4;

// How the lanes of a warp share its outputs: micro-tiles that lie APART_M and APART_N from the
// next.
template <class BlockTile> struct Lanes {
    static constexpr int HIGH = 32 / BlockTile::LANES_WIDE, WIDE = BlockTile::LANES_WIDE;
    static constexpr int APART_M = HIGH * TM, APART_N = WIDE * TN;
    static constexpr int REPEATS_M = BlockTile::WARP_HEIGHT / APART_M;
    static constexpr int REPEATS_N = BlockTile::WARP_WIDTH / APART_N;
    static_assert(APART_M % 32 == 0, "micro-tiles of A lie whole blocks of lines apart");
    static_assert(WIDE == 2 || WIDE == 4, "lanes in pairs both ways");
    static_assert(BlockTile::SLICED == 1, "warps that all have the whole k of a stage");
    static_assert(UNIT <= 4 || (REPEATS_M & (REPEATS_M - 1)) == 0,
                  "in tiles of 16 bits, Tile::read() finds repeats by an XOR");
    static_assert(BlockTile::WARP_HEIGHT % APART_M == 0 && BlockTile::WARP_WIDTH % APART_N == 0,
                  "micro-tiles must fill a warp's outputs");
};

// Adds the products of one stage to a lane's outputs, reading from start_a and start_b on, which
// are those of the first stage.
template <class TileA, class TileB, int APART_M, int REPEATS_M, int REPEATS_N>
__device__ __forceinline__ void multiply(acc_t (&sum)[REPEATS_M][REPEATS_N][TM][TN],
                                         const T *tiles_a, const T *tiles_b, int stage, int start_a,
                                         const int (&start_b)[REPEATS_N]) {
    UNROLL(int k = 0; k < BK; k += DEPTH) {
        acc_t b[REPEATS_N][TN][DEPTH];
        UNROLL(int s = 0; s < REPEATS_N; ++s)
            TileB::read(b[s], tiles_b, start_b[s] + stage * TileB::SIZE, k);
        UNROLL(int r = 0; r < REPEATS_M; ++r) {
            acc_t a[TM][DEPTH];
            TileA::read(a, tiles_a, start_a + stage * TileA::SIZE, k, r * APART_M);
            UNROLL(int d = 0; d < DEPTH; ++d)
                UNROLL(int i = 0; i < TM; ++i)
                    UNROLL(int s = 0; s < REPEATS_N; ++s)
                        UNROLL(int j = 0; j < TN; ++j) sum[r][s][i][j] += a[i][d] * b[s][j][d];
        }
    }
}

// A block's tile of the M x N product over k in [k_begin, k_end).
template <Rows A_ROWS, Rows B_ROWS, class BlockTile, class A, class B, class Epilogue,
          class Sums = NoSums>
__device__ Block gemm(const BlockAt<BlockTile> &at, const A &a, const B &b, int M, int N,
                      int k_begin, int k_end, const Epilogue &epilogue,
                      const Parts &parts = ALL_OF_K, const Sums &sums = {}) {
    using Lanes = ::Lanes<BlockTile>;
    using TileA = ::TileA<BlockTile, A_ROWS>;
    using TileB = ::TileB<BlockTile, B_ROWS>;
    constexpr int REPEATS_M = Lanes::REPEATS_M, REPEATS_N = Lanes::REPEATS_N;
    const int m0 = at.x * BlockTile::HEIGHT, n0 = at.y * BlockTile::WIDTH;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int warp_m = warp % BlockTile::WARPS_HIGH * BlockTile::WARP_HEIGHT;
    const int warp_n = warp / BlockTile::WARPS_HIGH * BlockTile::WARP_WIDTH;
    const int m = warp_m + (lane / 2 % Lanes::HIGH) * TM;
    const int n = warp_n + (lane % 2 + (Lanes::WIDE == 4 ? lane / 16 * 2 : 0)) * TN;
    const int used = in_register(int(m0 + warp_m < M && n0 + warp_n < N));
    acc_t sum[REPEATS_M][REPEATS_N][TM][TN] = {};
    const int start_a = in_register(TileA::start(m));
    int start_b[REPEATS_N];
    UNROLL(int s = 0; s < REPEATS_N; ++s)
        start_b[s] = in_register(TileB::start(n + s * Lanes::APART_N));
    BlockSums<Sums, TileA, TileB> beside(sums, at);
    const auto add = [&](const T *tiles_a, const T *tiles_b, int stage) {
        beside.add(tiles_a, tiles_b, stage);
        if (!used) return;
        multiply<TileA, TileB, Lanes::APART_M>(sum, tiles_a, tiles_b, stage, start_a, start_b);
    };
    in_stages<TileA, TileB>(a, b, m0, M, n0, N, k_begin, k_end, add);
    beside.store(m0, M, n0, N);
    const auto for_tiles = [&](const auto &body) {
        UNROLL(int r = 0; r < REPEATS_M; ++r)
            UNROLL(int s = 0; s < REPEATS_N; ++s) {
                const int row = m0 + m + r * Lanes::APART_M, column = n0 + n + s * Lanes::APART_N;
                if (row < M && column < N)
                    body(r * REPEATS_N + s, row, column, sum[r][s], smaller(TM, M - row),
                         smaller(TN, N - column));
            }
    };
    return finish(at, parts, for_tiles, epilogue, M, N);
}
