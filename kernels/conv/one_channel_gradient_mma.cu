// The gradients of filters and biases of a convolution of images of one channel, at stride 1, on
// tensor cores, in 16 bits: one_channel_gradient.cu has the maths.
//
// A product of 16 x 8 x 16 has taps along m (the last one is always 1, for biases), filters along n
// and pixels of dy along k. Two neighbours in a row of dy are a pair along k.
//
// shapes   x (N, H, W), dy (N, OH, OW, F), OW and F even; partial sums (blocks, F * (KH * KW +
//          bias)), those of biases last
// bytes    dy once, x once for each FILTERS filters
// shared   the image (pixel_pairs.cuh), and then the block's sums
// geometry grid (blocks, F / FILTERS): a block has `share` images, one after the other, of which a
//          warp takes 16 pixels of dy at a time
#include "conv/pixel_pairs.cuh"

// Groups of 16 filters of a block; one_channel_mma.py passes it.
#ifndef GROUPS
#define GROUPS 2
#endif

constexpr int ROWS = (TAPS + 1 + 15) / 16;                // products along m
constexpr int FILTERS = 16 * GROUPS, MOST_THREADS = 128;  // one_channel_mma.py

KERNEL __launch_bounds__(MOST_THREADS, 4)
one_channel_mma_filter_gradient(const T *__restrict__ dy, const T *__restrict__ x,
                                acc_t *__restrict__ partial, Window g, int images, int share, int F,
                                int bias) {
    DYNAMIC_SHARED(uint32, memory);
    const PixelPairs pixels(memory, g);
    const int warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    const int lane = threadIdx.x % WARP, group = lane / 4, member = lane % 4;
    const int first = blockIdx.y * FILTERS, own = first + 2 * group;
    int taps[2 * ROWS];  // of rows `group` and `group` + 8 of each product
    UNROLL(int r = 0; r < 2 * ROWS; ++r) {
        const int tap = smaller(r * 8 + group, TAPS - 1);
        taps[r] = pixels.at(tap / TAPS_W, tap % TAPS_W);
    }
    const uint32 ones = rounded<precision_t>(1, 1);
    const bool is_bias = group == TAPS % 8;

    // Pairs of a row of dy, and of all rows; a lane has two pairs in a step.
    const int half = g.OW / 2, pairs = g.OH * half;
    const int down = 8 * warps / half, across = 8 * warps - down * half;  // from step to step
    const int end = smaller(int(blockIdx.x + 1) * share, images);
    float sums[ROWS][2 * GROUPS][4] = {};
    for (int n = blockIdx.x * share; n < end; ++n) {
        pixels.fill(x + (int64)n * g.H * g.W, g);
        // A lane's two pairs of dy, of its filters; columns past the last filter are not stored.
        const T *from[2][GROUPS];
        int column[2], at[2];
        UNROLL(int r = 0; r < 2; ++r) {
            const int pair = warp * 8 + r * 4 + member, row = pair / half;
            column[r] = pair - row * half, at[r] = row * pixels.pitch + column[r];
            const T *const pixel = dy + ((int64)n * pairs + pair) * 2 * F;
            UNROLL(int j = 0; j < GROUPS; ++j) from[r][j] = pixel + smaller(own + 16 * j, F - 2);
        }
        const auto add = [&](int begin, bool all) INLINE {  // `all`: eight pairs are left
            uint32 b[2 * GROUPS][2];
            bool used[2];
            UNROLL(int r = 0; r < 2; ++r) {
                used[r] = all || begin + r * 4 + member < pairs;
                UNROLL(int j = 0; j < GROUPS; ++j) {
                    uint32 both[2] = {};
                    UNROLL(int i = 0; i < 2; ++i)
                        if (used[r])
                            both[i] = *reinterpret_cast<const uint32 *>(from[r][j] + i * F);
                    b[2 * j][r] = __byte_perm(both[0], both[1], 0x5410);
                    b[2 * j + 1][r] = __byte_perm(both[0], both[1], 0x7632);
                }
            }
            UNROLL(int i = 0; i < ROWS; ++i) {
                uint32 a[4];
                UNROLL(int r = 0; r < 4; ++r) {
                    const int row = 2 * i + r % 2;
                    a[r] = used[r / 2] ? pixels.words[at[r / 2] + taps[row]] : 0;
                    if (row == TAPS / 8 && is_bias) a[r] = ones;
                }
                UNROLL(int j = 0; j < 2 * GROUPS; ++j) mma<precision_t>(sums[i][j], a, b[j]);
            }
        };
        int begin = warp * 8;
        for (; begin + 8 <= pairs; begin += 8 * warps) {
            add(begin, true);
            UNROLL(int r = 0; r < 2; ++r) {
                column[r] += across, at[r] += down * pixels.pitch + across;
                if (column[r] >= half) column[r] -= half, at[r] += pixels.pitch - half;
                UNROLL(int j = 0; j < GROUPS; ++j) from[r][j] += 16 * warps * F;
            }
        }
        if (begin < pairs) add(begin, false);
    }

    // The warps' sums, added up in order.
    __shared__ acc_t of_block[16 * ROWS][FILTERS + 1];
    for (int turn = 0; turn < warps; ++turn) {
        if (turn == warp)
            UNROLL(int i = 0; i < ROWS; ++i)
                UNROLL(int j = 0; j < 2 * GROUPS; ++j)
                    UNROLL(int r = 0; r < 4; ++r) {
                        const int tap = i * 16 + r / 2 * 8 + group;
                        const int column = member * 2 + r % 2;  // of the product
                        acc_t &sum = of_block[tap][j / 2 * 16 + 2 * column + j % 2];
                        sum = turn ? sum + sums[i][j][r] : sums[i][j][r];
                    }
        __syncthreads();
    }
    partial += (int64)blockIdx.x * F * (TAPS + bias);
    const int used = smaller(FILTERS, F - first);
    BLOCK_STRIDE(i, used * TAPS) partial[first * TAPS + i] = of_block[i % TAPS][i / TAPS];
    if (bias)
        BLOCK_STRIDE(f, used) partial[F * TAPS + first + f] = of_block[TAPS][f];
}
