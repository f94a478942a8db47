// The one GEMM without tensor cores: one fused multiply-add per product.
//
// A block computes BM x BN outputs, a warp WARP_M x WARP_N of them, a lane REPEATS_M x REPEATS_N
// micro-tiles of 4 x 4. Along k a lane reads 4 x DEPTH elements at once, 16 bytes per output.
//
//   bytes    (BM + BN) * BK elements read per 2 * BM * BN * BK operations
//   shared   for floats and 8 x 8 outputs, a lane reads 4 times 16 bytes for 64 fma
//   geometry grid (ceil(M / BM), ceil(N / BN), any), THREADS threads
//   lanes    LANES_N of them side by side along n, the others along m. Lanes that differ in the
//            lowest bit read the same rows of A, and in the next bit the same columns of B: so
//            shared memory serves two groups of eight at once ("confl." in
//            bench/results/profile-*.json)
#pragma once

constexpr int LANES_M = 32 / LANES_N;
constexpr int REPEATS_M = WARP_M / (LANES_M * TM), REPEATS_N = WARP_N / (LANES_N * TN);
static_assert(LANES_M * TM % 32 == 0, "micro-tiles of A lie whole blocks of lines apart");
static_assert(LANES_N == 2 || LANES_N == 4, "lanes in pairs both ways");
static_assert(WARP_M % (LANES_M * TM) == 0 && WARP_N % (LANES_N * TN) == 0,
              "micro-tiles must fill a warp's outputs");

constexpr int DEPTH = UNIT < 4 ? UNIT : 4;
using Sums = acc_t[REPEATS_M][REPEATS_N][TM][TN];

// Adds the products of one stage to a lane's outputs, reading from start_a and start_b on.
template <class TileA, class TileB>
__device__ __forceinline__ void multiply(Sums &sum, const T *tiles_a, const T *tiles_b, int start_a,
                                         const int (&start_b)[REPEATS_N]) {
    UNROLL(int k = 0; k < BK; k += DEPTH) {
        acc_t b[REPEATS_N][TN][DEPTH];
        UNROLL(int s = 0; s < REPEATS_N; ++s) TileB::read(b[s], tiles_b, start_b[s], k);
        UNROLL(int r = 0; r < REPEATS_M; ++r) {
            acc_t a[TM][DEPTH];
            TileA::read(a, tiles_a, start_a, k, r * LANES_M * TM);
            UNROLL(int d = 0; d < DEPTH; ++d)
                UNROLL(int i = 0; i < TM; ++i)
                    UNROLL(int s = 0; s < REPEATS_N; ++s)
                        UNROLL(int j = 0; j < TN; ++j) sum[r][s][i][j] += a[i][d] * b[s][j][d];
        }
    }
}

// Tile (blockIdx.x, blockIdx.y) of the M x N product over k in [k_begin, k_end).
template <Rows A_ROWS, Rows B_ROWS, class A, class B, class Epilogue>
__device__ Block gemm(const A &a, const B &b, int M, int N, int k_begin, int k_end,
                      const Epilogue &epilogue, const Parts &parts = ALL_OF_K) {
    const int m0 = blockIdx.x * BM, n0 = blockIdx.y * BN;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int warp_m = warp % WARPS_M * WARP_M, warp_n = warp / WARPS_M * WARP_N;
    const int m = warp_m + (lane / 2 % LANES_M) * TM;
    const int n = warp_n + (lane % 2 + (LANES_N == 4 ? lane / 16 * 2 : 0)) * TN;
    const bool used = m0 + warp_m < M && n0 + warp_n < N;
    Sums sum = {};
    using TileA = Tile<A_ROWS, BM, VECTOR_A>;
    using TileB = Tile<B_ROWS, BN, VECTOR_B>;
    int start_a = TileA::start(m), start_b[REPEATS_N];
    UNROLL(int s = 0; s < REPEATS_N; ++s) start_b[s] = TileB::start(n + s * LANES_N * TN);
    const auto add = [&](const T *tiles_a, const T *tiles_b, int stage) {
        if (used) multiply<TileA, TileB>(sum, tiles_a, tiles_b, start_a, start_b);
        next_stage<TileA::SIZE>(start_a, stage);
        UNROLL(int s = 0; s < REPEATS_N; ++s) next_stage<TileB::SIZE>(start_b[s], stage);
    };
    in_stages<A_ROWS, B_ROWS>(a, b, m0, M, n0, N, k_begin, k_end, add);
    const auto for_tiles = [&](const auto &body) {
        UNROLL(int r = 0; r < REPEATS_M; ++r)
            UNROLL(int s = 0; s < REPEATS_N; ++s) {
                const int row = m0 + m + r * LANES_M * TM, column = n0 + n + s * LANES_N * TN;
                if (row < M && column < N)
                    body(row, column, sum[r][s], smaller(TM, M - row), smaller(TN, N - column));
            }
    };
    return finish(parts, for_tiles, epilogue, m0, M, n0, N);
}
