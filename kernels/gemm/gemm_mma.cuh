// The one GEMM on tensor cores: the loaders and epilogues of gemm.cuh, sums in float32. Arrays have
// the type of PRECISION (bf16 or fp16), or are float and rounded to it (or to tf32) when they are
// read into registers.
//
// A block computes BM x BN outputs, a warp WARP_M x WARP_N of them. The rows of a product may be
// any outputs of A, its columns any of B: here they are four apart, so that a lane reads 16 bytes
// of four neighbours at once, and ends with micro-tiles of 4 x 4 outputs, in 16 bits of 4 x 8.
//
//   bytes    as in gemm_fma.cuh
//   shared   for a warp's 64 x 64 outputs and 32 k of 16 bits, a lane reads 16 times 16 bytes for
//            64 products of 16 x 8 x 16
//   geometry as in gemm_fma.cuh
//   lanes    with g = lane / 4, t = lane % 4: of each 32 outputs a lane reads four from 4g on, and
//            of each STEP of k the t-th quarter; of each 32 x 32 outputs it holds four rows from 4g
//            on and eight columns from 8t on
#pragma once

#include "dialect/mma.cuh"

using precision_t = TYPE_PRECISION;

static_assert(sizeof(acc_t) == sizeof(float), "sums in float");

constexpr int STEP = 4 * UNIT;                   // k of a step: 16 bytes for each of four lanes
constexpr int PRODUCTS = STEP / precision_t::K;  // along k
static_assert(BK % STEP == 0, "whole steps");

// A lane's registers for four outputs: the first and the second register of each product. The order
// of k does not matter if it is the same for a and b.
using Registers = uint32[4][PRODUCTS][2];

template <class Tile>
__device__ __forceinline__ void read(Registers &to, const T *stages, int start, int k, int apart) {
    if constexpr (sizeof(T) == 4) {
        using E = precision_t;
        float value[4][4];
        Tile::read(value, stages, start, k, apart);
        UNROLL(int i = 0; i < 4; ++i)
            UNROLL(int p = 0; p < PRODUCTS; ++p)
                UNROLL(int r = 0; r < 2; ++r) {
                    const int first = (p * 2 + r) * E::PER;
                    to[i][p][r] = rounded<E>(value[i][first], value[i][first + E::PER - 1]);
                }
    } else if constexpr (Tile::K_MAJOR) {
        const T *first = stages + (start ^ k) + apart * Tile::COLUMNS;
        UNROLL(int i = 0; i < 4; ++i)
            load_vector<4>(reinterpret_cast<uint32(&)[4]>(to[i]),
                           reinterpret_cast<const uint32 *>(first + i * 8 * Tile::COLUMNS));
    } else {  // lines of outputs: two lines give the pairs along k
        const T *first = stages + start + k * Tile::COLUMNS;
        UNROLL(int pair = 0; pair < 4; ++pair) {
            uint32 low[2], high[2];
            const T *line = first + pair * 2 * Tile::COLUMNS;
            load_vector<2>(low, reinterpret_cast<const uint32 *>(line));
            load_vector<2>(high, reinterpret_cast<const uint32 *>(line + Tile::COLUMNS));
            UNROLL(int i = 0; i < 4; ++i)
                to[i][pair / 2][pair % 2] =
                    __byte_perm(low[i / 2], high[i / 2], i % 2 ? 0x7632 : 0x5410);
        }
    }
}

// Where a lane reads COUNT times 32 outputs, in the first stage. Those of a k-major tile lie a
// constant apart; in lines of outputs an XOR permutes them, so each has a place of its own.
template <class Tile, int COUNT> struct Starts {
    int start[Tile::K_MAJOR ? 1 : COUNT];

    __device__ Starts(int output, int k) {
        UNROLL(int i = 0; i < (Tile::K_MAJOR ? 1 : COUNT); ++i)
            start[i] = in_register(Tile::start(output + i * 32, k));
    }
    __device__ __forceinline__ void read(Registers &to, const T *stages, int stage, int i,
                                         int k) const {
        ::read<Tile>(to, stages, start[Tile::K_MAJOR ? 0 : i] + stage * Tile::SIZE, k,
                     Tile::K_MAJOR ? i * 32 : 0);
    }
};

// Adds the products of one stage to a warp's outputs.
template <class StartsA, class StartsB, int HIGH, int WIDE>
__device__ __forceinline__ void multiply(float (&sum)[HIGH][2][WIDE][4][4], const T *tiles_a,
                                         const T *tiles_b, int stage, const StartsA &starts_a,
                                         const StartsB &starts_b) {
    UNROLL(int k = 0; k < BK; k += STEP) {
        Registers b[WIDE];
        UNROLL(int s = 0; s < WIDE; ++s) starts_b.read(b[s], tiles_b, stage, s, k);
        UNROLL(int i = 0; i < HIGH; ++i) {
            Registers rows;
            starts_a.read(rows, tiles_a, stage, i, k);
            UNROLL(int half = 0; half < 2; ++half)
                UNROLL(int p = 0; p < PRODUCTS; ++p) {
                    uint32 a[4];
                    UNROLL(int r = 0; r < 4; ++r) a[r] = rows[half * 2 + r % 2][p][r / 2];
                    UNROLL(int s = 0; s < WIDE; ++s)
                        UNROLL(int j = 0; j < 4; ++j)
                            mma<precision_t>(sum[i][half][s][j], a, b[s][j][p]);
                }
        }
    }
}

// A thread's warp, by its first outputs, and its place in the warp.
template <class BlockTile> struct Lane {
    int warp_m, warp_n, g, t;

    __device__ explicit Lane(int thread) : g(thread % 32 / 4), t(thread % 4) {
        const int warp = thread / 32;
        warp_m = warp % BlockTile::WARPS_HIGH * BlockTile::WARP_HEIGHT;
        warp_n = warp / BlockTile::WARPS_HIGH * BlockTile::WARP_WIDTH;
    }
};

// A block's tile of the M x N product over k in [k_begin, k_end).
template <Rows A_ROWS, Rows B_ROWS, class BlockTile, class A, class B, class Epilogue,
          class Sums = NoSums>
__device__ Block gemm(const BlockAt<BlockTile> &at, const A &a, const B &b, int M, int N,
                      int k_begin, int k_end, const Epilogue &epilogue,
                      const Parts &parts = ALL_OF_K, const Sums &sums = {}) {
    using TileA = ::TileA<BlockTile, A_ROWS>;
    using TileB = ::TileB<BlockTile, B_ROWS>;
    constexpr int WARP_HEIGHT = BlockTile::WARP_HEIGHT, WARP_WIDTH = BlockTile::WARP_WIDTH;
    static_assert(WARP_HEIGHT % 32 == 0 && WARP_WIDTH % 32 == 0,
                  "products must fill a warp's outputs");
    constexpr int HIGH = WARP_HEIGHT / 32, WIDE = WARP_WIDTH / 32;
    const int m0 = at.x * BlockTile::HEIGHT, n0 = at.y * BlockTile::WIDTH;
    const Lane<BlockTile> lane(threadIdx.x);
    const int used = in_register(int(m0 + lane.warp_m < M && n0 + lane.warp_n < N));
    // Of rows 4g and 4g + 1, then 4g + 2 and 4g + 3, by columns 8t + j and 8t + 4 + j.
    float sum[HIGH][2][WIDE][4][4] = {};
    Starts<TileA, HIGH> starts_a(lane.warp_m + lane.g * 4, lane.t * UNIT);
    Starts<TileB, WIDE> starts_b(lane.warp_n + lane.g * 4, lane.t * UNIT);
    BlockSums<Sums, TileA, TileB> beside(sums, at);
    const auto add = [&](const T *tiles_a, const T *tiles_b, int stage) {
        beside.add(tiles_a, tiles_b, stage);
        if (used) multiply(sum, tiles_a, tiles_b, stage, starts_a, starts_b);
    };
    in_stages<TileA, TileB>(a, b, m0, M, n0, N, k_begin, k_end, add);
    const auto block = anew(at);
    const int first_m = block.x * BlockTile::HEIGHT, first_n = block.y * BlockTile::WIDTH;
    beside.store(first_m, M, first_n, N);
    const auto for_tiles = [&](const auto &body) {
        const Lane<BlockTile> own(thread_anew());
        UNROLL(int i = 0; i < HIGH; ++i)
            UNROLL(int s = 0; s < WIDE; ++s)
                UNROLL(int c = 0; c < 8; c += TN) {
                    const int m = first_m + own.warp_m + i * 32 + own.g * TM;
                    const int n = first_n + own.warp_n + s * 32 + own.t * 8 + c;
                    if (m >= M || n >= N) continue;
                    acc_t tile[TM][TN];
                    const auto at = [&](int r, int j) -> acc_t & {
                        return sum[i][r / 2][s][(c + j) % 4][r % 2 * 2 + (c + j) / 4];
                    };
                    UNROLL(int r = 0; r < TM; ++r)
                        UNROLL(int j = 0; j < TN; ++j) tile[r][j] = at(r, j);
                    body(((i * WIDE + s) * 8 + c) / TN, m, n, tile, smaller(TM, M - m),
                         smaller(TN, N - n));
                    UNROLL(int r = 0; r < TM; ++r)
                        UNROLL(int j = 0; j < TN; ++j) at(r, j) = tile[r][j];
                }
    };
    return finish(block, parts, for_tiles, epilogue, M, N);
}
