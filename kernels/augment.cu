// Bilinear affine warps of images, and random ones; the maps are those of warp.cuh.
//
//   (u, v) = matrix[n] (x, y, 1)^T          output pixel (x, y) to input position (u, v)
//   out[n, y, x, c] = sum over the four neighbours of (u, v) of their weight times their value;
//   a neighbour outside the image has the value `fill`
//
// shapes   images, out (N, H, W, C), element type pixel_t; matrix (N, 2, 3) of T
// bytes    images once (its neighbours from cache), out once
// geometry any grid; warp: a thread LANES pixels of a row; matrices: a thread an image
#include "warp.cuh"

#ifndef TYPE_pixel_t
#define TYPE_pixel_t unsigned char
#endif
using pixel_t = TYPE_pixel_t;

constexpr int LANES = Simd<acc_t>::LANES;

KERNEL warp_images(const pixel_t *__restrict__ images, const T *__restrict__ matrix,
                   pixel_t *__restrict__ out, int64 count, int H, int W, int C, double fill) {
    const int parts = ceil_div(W, LANES);  // of a row
    GRID_STRIDE(part, count * H * parts) {
        const int64 row = part / parts, n = row / H;
        const int y = int(row - n * H), x = int(part - row * parts) * LANES;
        pixel_t *target = out + (row * W + x) * C;
        const int pixels = smaller(LANES, W - x);
        const auto store = [=](int c, const pixel_t(&values)[LANES]) {
            FIRST_LANES(l, LANES, pixels) target[l * C + c] = values[l];
        };
        warp_pixels<acc_t, LANES>(images + n * H * W * C, matrix + n * 6, x, y, H, W, C, fill,
                                  store);
    }
}

KERNEL random_matrices(T *__restrict__ matrix, int64 count, int H, int W, double rotate,
                       double shift, double zoom, uint64 seed, uint64 offset) {
    GRID_STRIDE(n, count)
        random_map<acc_t>(matrix + n * 6, H, W, rotate, shift, zoom, seed, n, offset);
}
