// Images of one channel in 16 bits for tensor cores, which take pairs of neighbours along k.
#pragma once

#include "conv/one_channel.cuh"
#include "dialect/mma.cuh"

using precision_t = TYPE_PRECISION;
static_assert(sizeof(T) == 2 && precision_t::K == 16, "pairs in a word");

constexpr int TAPS = TAPS_H * TAPS_W;

// An image with its padding in shared memory, twice: in pairs from even columns on, and from odd
// ones. So any two neighbours of a row are a word.
struct PixelPairs {
    uint32 *words;
    int rows, pitch;  // words of a row

    __device__ PixelPairs(uint32 *words, const Window &g)
        : words(words), rows(g.OH + TAPS_H - 1), pitch((g.OW + TAPS_W) / 2) {}

    // The word of pixels (row, column) and (row, column + 1), counted from the padding's corner.
    __device__ int at(int row, int column) const {
        return (column % 2 * rows + row) * pitch + column / 2;
    }
    // The block's threads call it together: it waits until they have read what was there, and until
    // all is filled. Without padding, a pixel past the end of a row is any of the row.
    __device__ void fill(const T *image, const Window &g) const {
        __syncthreads();
        const uint16 *const bits = reinterpret_cast<const uint16 *>(image);
        const int across = pitch <= WARP / 2 ? WARP / 2 : WARP;  // threads of a row
        for (int i = threadIdx.x % across; i < pitch; i += across) {
            int64 columns[3];
            bool inside[3];
            UNROLL(int j = 0; j < 3; ++j) {
                const int column = 2 * i + j - g.PW;
                columns[j] = smaller(larger(column, 0), g.W - 1);
                inside[j] = columns[j] == column;
            }
            NO_UNROLL(int row = threadIdx.x / across; row < rows; row += blockDim.x / across) {
                const int h = PADDED ? smaller(larger(row - g.PH, 0), g.H - 1) : row;
                const uint16 *const line = bits + h * g.W;
                uint32 pixels[3];
                UNROLL(int j = 0; j < 3; ++j) {
                    const uint32 pixel = line[columns[j]];
                    pixels[j] = !PADDED || (h == row - g.PH && inside[j]) ? pixel : 0;
                }
                words[at(row, 2 * i)] = pixels[0] | pixels[1] << 16;
                words[at(row, 2 * i + 1)] = pixels[1] | pixels[2] << 16;
            }
        }
        __syncthreads();
    }
};
