// The one GEMM on tensor cores: the loaders and epilogues of gemm.cuh, sums in float32. Arrays have
// the type of PRECISION (bf16 or fp16), or are float and rounded to it (or to tf32) when they are
// read into registers.
//
// A block computes BM x BN outputs, a warp WARP_M x WARP_N of them, or its slice of their k
// (slices.cuh). The rows of a product may be any outputs of A, its columns any of B: here they are
// four apart, so that a lane ends with micro-tiles of 4 x 4 outputs, in 16 bits of 4 x 8. In
// filters' gradients (MATRICES) rows are neighbours, as ldmatrix reads them, and micro-tiles 1 x 8.
//
//   bytes    as in gemm_fma.cuh
//   shared   for a warp's 64 x 64 outputs and 32 k of 16 bits, a lane reads 16 times 16 bytes for
//            64 products of 16 x 8 x 16
//   geometry as in gemm_fma.cuh
//   lanes    with g = lane / 4, t = lane % 4: of each 32 x 32 outputs a lane holds four rows from
//            4g on, of MATRICES every eighth from g on, and eight columns from 8t on
#pragma once

#include "gemm/fragments.cuh"
#include "gemm/slices.cuh"

static_assert(sizeof(acc_t) == sizeof(float), "sums in float");

// Adds a warp's products of one stage to its outputs: of each 32 x 32, by rows first.
template <class ReaderA, class ReaderB>
__device__ __forceinline__ void multiply(Sums32 (&sum)[ReaderA::TIMES * ReaderB::TIMES],
                                         const T *tiles_a, const T *tiles_b, int stage,
                                         const ReaderA &reader_a, const ReaderB &reader_b) {
    constexpr int HIGH = ReaderA::TIMES, WIDE = ReaderB::TIMES, PRODUCTS = ReaderA::PRODUCTS;
    UNROLL(int k = 0; k < ReaderA::DEPTH; k += ReaderA::STEP) {
        Registers<Operand::B, PRODUCTS> b[WIDE];
        UNROLL(int s = 0; s < WIDE; ++s) reader_b.read(b[s], tiles_b, stage, s, k);
        UNROLL(int i = 0; i < HIGH; ++i) {
            Registers<Operand::A, PRODUCTS> a;
            reader_a.read(a, tiles_a, stage, i, k);
            UNROLL(int half = 0; half < 2; ++half)
                UNROLL(int p = 0; p < PRODUCTS; ++p)
                    UNROLL(int s = 0; s < WIDE; ++s)
                        UNROLL(int j = 0; j < 4; ++j)
                            mma<precision_t>(sum[i * WIDE + s].of[half][j], a.words[half][p],
                                             b[s].words[j][p]);
        }
    }
}

// A thread's warp, by its first outputs and its slice of k, and its place in the warp.
template <class BlockTile> struct Lane {
    int warp_m, warp_n, slice, g, t;

    __device__ explicit Lane(int thread) : g(thread % 32 / 4), t(thread % 4) {
        const int warp = thread / 32;
        warp_m = warp % BlockTile::WARPS_HIGH * BlockTile::WARP_HEIGHT;
        warp_n = warp / BlockTile::WARPS_HIGH % BlockTile::WARPS_WIDE * BlockTile::WARP_WIDTH;
        slice = BlockTile::SLICED > 1 ? warp / (BlockTile::WARPS_HIGH * BlockTile::WARPS_WIDE) : 0;
    }
};

// A block's tile of the M x N product over k in [k_begin, k_end).
template <Rows A_ROWS, Rows B_ROWS, class BlockTile, class A, class B, class Epilogue,
          class Sums = NoSums>
__device__ Block gemm(const BlockAt<BlockTile> &at, const A &a, const B &b, int M, int N,
                      int k_begin, int k_end, const Epilogue &epilogue,
                      const Parts &parts = ALL_OF_K, const Sums &sums = {}) {
    // Lines of A are read as matrices where the epilogue does not need neighbours along m together.
    constexpr bool MATRICES = sizeof(T) == 2 && A_ROWS == Rows::ALONG_K && B_ROWS == Rows::ALONG_K;
    using TileA = ::TileA<BlockTile, A_ROWS, MATRICES>;
    using TileB = ::TileB<BlockTile, B_ROWS>;
    constexpr int WARP_HEIGHT = BlockTile::WARP_HEIGHT, WARP_WIDTH = BlockTile::WARP_WIDTH;
    static_assert(WARP_HEIGHT % 32 == 0 && WARP_WIDTH % 32 == 0,
                  "products must fill a warp's outputs");
    constexpr int HIGH = WARP_HEIGHT / 32, WIDE = WARP_WIDTH / 32;
    constexpr int SLICE = BK / BlockTile::SLICED, OWN = HIGH * WIDE / BlockTile::SLICED;
    const int m0 = at.x * BlockTile::HEIGHT, n0 = at.y * BlockTile::WIDTH;
    const Lane<BlockTile> lane(threadIdx.x);
    const int used = in_register(int(m0 + lane.warp_m < M && n0 + lane.warp_n < N));
    Sums32 sum[HIGH * WIDE] = {};
    const int k = lane.slice * SLICE;
    const Reader<Operand::A, TileA, HIGH, SLICE> reader_a(lane.warp_m, k, threadIdx.x % 32);
    const Reader<Operand::B, TileB, WIDE, SLICE> reader_b(lane.warp_n, k, threadIdx.x % 32);
    BlockSums<Sums, TileA, TileB> beside(sums, at);
    const auto add = [&](const T *tiles_a, const T *tiles_b, int stage) {
        beside.add(tiles_a, tiles_b, stage);
        if (used) multiply(sum, tiles_a, tiles_b, stage, reader_a, reader_b);
    };
    in_stages<TileA, TileB>(a, b, m0, M, n0, N, k_begin, k_end, add);
    const auto block = anew(at);
    const int first_m = block.x * BlockTile::HEIGHT, first_n = block.y * BlockTile::WIDTH;
    beside.store(first_m, M, first_n, N);
    add_slices<BlockTile>(sum);
    // Micro-tiles of the rows that are neighbours: of MATRICES one, else TM.
    constexpr int ROWS = MATRICES ? 1 : TM;
    const auto for_tiles = [&](const auto &body) {
        const Lane<BlockTile> own(thread_anew());
        UNROLL(int q = 0; q < OWN; ++q) {
            const int number = own.slice * OWN + q;
            UNROLL(int first = 0; first < TM; first += ROWS)
                UNROLL(int c = 0; c < 8; c += TN) {
                    const int row = MATRICES ? first * 8 + own.g : own.g * TM;
                    const int m = first_m + own.warp_m + number / WIDE * 32 + row;
                    const int n = first_n + own.warp_n + number % WIDE * 32 + own.t * 8 + c;
                    if (m >= M || n >= N) continue;
                    acc_t tile[TM][TN];
                    const auto at = [&](int r, int j) -> acc_t & {
                        return sum[q].of[r / 2][(c + j) % 4][r % 2 * 2 + (c + j) / 4];
                    };
                    UNROLL(int r = 0; r < ROWS; ++r)
                        UNROLL(int j = 0; j < TN; ++j) tile[r][j] = at(first + r, j);
                    const int micro = ((q * TM + first) / ROWS * 8 + c) / TN;
                    body(micro, m, n, tile, smaller(ROWS, M - m), smaller(TN, N - n));
                    UNROLL(int r = 0; r < ROWS; ++r)
                        UNROLL(int j = 0; j < TN; ++j) at(first + r, j) = tile[r][j];
                }
        }
    };
    return finish(block, parts, for_tiles, epilogue, M, N);
}
