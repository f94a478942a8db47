// Convolutions of images of one channel on tensor cores, in 16 bits: the product, which
// one_channel_mma.cu and one_channel_pool_mma.cu share.
//
// Pixels are along m, filters along n, taps along k. Two taps that are neighbours in a row of the
// filter are a pair along k, and so are the pixels under them.
#pragma once

#include "conv/pixel_pairs.cuh"

// Groups of eight filters of a block; one_channel_mma.py passes it.
#ifndef GROUPS
#define GROUPS 4
#endif
constexpr int FILTERS = 8 * GROUPS, OF_LANE = 2 * GROUPS;
constexpr int MOST_THREADS = 256;  // one_channel_mma.py

// Pairs of taps along k: first the whole ones, then those that end a row of an odd number.
constexpr int WHOLE_W = TAPS_W / 2, WHOLE = TAPS_H * WHOLE_W;
constexpr int PAIRS = WHOLE + TAPS_W % 2 * TAPS_H, STEPS = (PAIRS + 7) / 8;
constexpr int PITCH = 8 * STEPS + 4;  // words of a filter: eight of them meet all banks

struct Pair {
    int row, column, taps;  // the first tap, and how many there are

    __device__ explicit Pair(int number) {
        const bool whole = number < WHOLE;
        taps = whole ? 2 : number < PAIRS ? 1 : 0;
        row = whole ? number / larger(WHOLE_W, 1) : taps ? number - WHOLE : 0;
        column = whole ? number % larger(WHOLE_W, 1) * 2 : taps ? TAPS_W - 1 : 0;
    }
};

// A lane's share of the block's filters from `first` on. It gets sums of OF_LANE of them: PIECE
// neighbours of each 4 * PIECE.
struct PairedFilters {
    static constexpr int PIECE = GROUPS == 3 ? 2 : OF_LANE;  // a power of two, for wide stores
    int F, own;                                              // the lane's first filter
    uint32 weights[GROUPS][STEPS][2];
    acc_t shift[OF_LANE];
    int taps[STEPS][2];     // words from a pixel's own to those under a pair
    uint32 kept[STEPS][2];  // of such a word: a pixel under no tap may be infinite

    // The block's threads call it together.
    __device__ PairedFilters(const T *w, const T *b, int first, int F, const PixelPairs &pixels)
        : F(F) {
        constexpr int SLOTS = 8 * STEPS;
        __shared__ uint32 filters[FILTERS * PITCH];
        BLOCK_STRIDE(i, FILTERS * SLOTS) {
            const int f = first + i / SLOTS;
            const Pair pair(i % SLOTS);
            const uint16 *const tap =
                reinterpret_cast<const uint16 *>(w) + f * TAPS + pair.row * TAPS_W + pair.column;
            const uint32 one = f < F && pair.taps > 0 ? tap[0] : 0;
            const uint32 other = f < F && pair.taps > 1 ? tap[1] : 0;
            filters[i / SLOTS * PITCH + i % SLOTS] = one | other << 16;
        }
        __syncthreads();
        const int lane = threadIdx.x % WARP, group = lane / 4, member = lane % 4;
        own = first + member * PIECE;
        UNROLL(int j = 0; j < GROUPS; ++j) {
            const int f = group / 2 * PIECE + apart(2 * j + group % 2);  // of column `group`
            UNROLL(int step = 0; step < STEPS; ++step)
                UNROLL(int r = 0; r < 2; ++r)
                    weights[j][step][r] = filters[f * PITCH + step * 8 + r * 4 + member];
        }
        UNROLL(int c = 0; c < OF_LANE; ++c)
            shift[c] = b && own + apart(c) < F ? acc_t(b[own + apart(c)]) : acc_t(0);
        UNROLL(int step = 0; step < STEPS; ++step)
            UNROLL(int r = 0; r < 2; ++r) {
                const Pair pair(step * 8 + r * 4 + member);
                taps[step][r] = pair.row * pixels.pitch + pair.column / 2;
                kept[step][r] = pair.taps == 2 ? ~0u : pair.taps == 1 ? 0xffffu : 0u;
            }
    }

    // From the lane's first filter to its c-th, which is column c % 2 of product c / 2.
    static __device__ constexpr int apart(int c) { return c / PIECE * 4 * PIECE + c % PIECE; }

    // Stores the lane's values to a row of F.
    template <typename E, typename V>
    __device__ __forceinline__ void store(E *row, const V (&values)[OF_LANE]) const {
        UNROLL(int c = 0; c < OF_LANE; c += PIECE) {
            V piece[PIECE];
            UNROLL(int i = 0; i < PIECE; ++i) piece[i] = values[c + i];
            const int f = own + apart(c);
            store_row(row + f, piece, F - f);
        }
    }

    // The sums of two pixels, whose words are at[0] and at[1]: sums[j][2 * i + c] is that of pixel
    // i and the lane's filter 2 * j + c.
    __device__ __forceinline__ void multiply(float (&sums)[GROUPS][4], const PixelPairs &pixels,
                                             const int (&at)[2]) const {
        UNROLL(int step = 0; step < STEPS; ++step) {
            uint32 a[4];
            UNROLL(int r = 0; r < 4; ++r) {
                a[r] = pixels.words[at[r % 2] + taps[step][r / 2]];
                if (step * 8 + r / 2 * 4 + 4 > WHOLE) a[r] &= kept[step][r / 2];
            }
            UNROLL(int j = 0; j < GROUPS; ++j) mma<precision_t>(sums[j], a, weights[j][step]);
        }
    }
};
