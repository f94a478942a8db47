// What convolutions of images of one channel share: one_channel.cu, one_channel_pool.cu and
// one_channel_gradient.cu.
#pragma once

#include "common/window.cuh"
#include "dialect/lanes.cuh"

// Taps of a filter, and whether some are outside the image; one_channel.py passes them.
#ifndef TAPS_H
#define TAPS_H 3
#define TAPS_W 3
#endif
#ifndef PADDED
#define PADDED 1
#endif

// Loads the pixels of an image (H, W) from row `top` and column `left` on; those outside are zero
// or, unless PADDED, undefined. Places are clamped, so that no load waits for a branch.
template <int ROWS, int COLUMNS>
__device__ __forceinline__ void load_pixels(acc_t (&pixels)[ROWS][COLUMNS], const T *image, int H,
                                            int W, int top, int left) {
    int columns[COLUMNS];
    UNROLL(int j = 0; j < COLUMNS; ++j)
        columns[j] = smaller(PADDED ? larger(left + j, 0) : left + j, W - 1);
    UNROLL(int i = 0; i < ROWS; ++i) {
        const int row = smaller(PADDED ? larger(top + i, 0) : top + i, H - 1);
        const T *const line = image + row * W;
        UNROLL(int j = 0; j < COLUMNS; ++j) {
            const acc_t value = line[columns[j]];
            const bool inside = !PADDED || (row == top + i && columns[j] == left + j);
            pixels[i][j] = inside ? value : acc_t(0);
        }
    }
}
