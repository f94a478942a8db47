// Warps that share outputs, each with a slice of every stage's k. Fewer warps would leave tensor
// cores idle, and warps of fewer outputs read more: of each k, WARP_M + WARP_N elements for WARP_M
// x WARP_N products.
//
//   shared   after the main loop BM x BN sums for each slice but one, written and read once
#pragma once

// A lane's sums of 32 x 32 outputs: of rows 4g and 4g + 1, then 4g + 2 and 4g + 3, by columns
// 8t + j and 8t + 4 + j.
struct Sums32 { float of[2][4][4]; };

// Each warp gets the sums over all slices of its own part of the outputs that it shares, which are
// the first ones of `sum` then. All threads of the block call it.
template <class BlockTile, int COUNT>
__device__ __forceinline__ void add_slices(Sums32 (&sum)[COUNT]) {
    constexpr int SLICED = BlockTile::SLICED, OWN = COUNT / SLICED;
    constexpr int WARPS = BlockTile::THREADS / 32 / SLICED, PIECES = sizeof(Sums32) / 16;
    static_assert(COUNT % SLICED == 0, "each warp has a part of the outputs");
    static_assert((SLICED - 1) * BlockTile::HEIGHT * BlockTile::WIDTH * sizeof(acc_t) <=
                      BlockTile::STAGED * sizeof(T),
                  "the other slices' sums must fit where the tiles were");
    if constexpr (SLICED > 1) {
        const int warp = threadIdx.x / 32 % WARPS, slice = threadIdx.x / 32 / WARPS;
        float *const memory = reinterpret_cast<float *>(stages());
        // Where the warps of a part find a piece of sum `number`, as another slice has it.
        const auto place = [&](int number, int other, int piece) {
            const int line = ((warp * COUNT + number) * (SLICED - 1) + other) * PIECES + piece;
            return memory + (line * 32 + threadIdx.x % 32) * 4;
        };
        const auto pieces = [](Sums32 &sums) -> float (&)[PIECES][4] {
            return reinterpret_cast<float (&)[PIECES][4]>(sums);
        };
        __syncthreads();  // the tiles are no longer read
        UNROLL(int number = 0; number < COUNT; ++number) {
            const int reader = number / OWN;
            if (slice == reader) {
                sum[number % OWN] = sum[number];  // has been written, unless it is the same
                continue;
            }
            UNROLL(int i = 0; i < PIECES; ++i)
                store_vector(place(number, slice - (slice > reader), i), pieces(sum[number])[i]);
        }
        __syncthreads();
        UNROLL(int q = 0; q < OWN; ++q)
            UNROLL(int other = 0; other < SLICED - 1; ++other)
                UNROLL(int i = 0; i < PIECES; ++i) {
                    float more[4];
                    load_vector(more, place(slice * OWN + q, other, i));
                    UNROLL(int j = 0; j < 4; ++j) pieces(sum[q])[i][j] += more[j];
                }
    }
}
