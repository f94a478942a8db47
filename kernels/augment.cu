// Bilinear affine warps of images, and random ones; the maps are those of warp.cuh.
//
//   (u, v) = matrix[n] (x, y, 1)^T          output pixel (x, y) to input position (u, v)
//   out[n, y, x, c] = sum over the four neighbours of (u, v) of their weight times their value;
//   a neighbour outside the image has the value `fill`
//
// shapes   images, out (N, H, W, C), element type pixel_t; matrix (N, 2, 3) of T
// bytes    images once (its neighbours from cache), out once
// geometry any grid; warp: a thread an output pixel; matrices: a thread an image
#include "warp.cuh"

#ifndef TYPE_pixel_t
#define TYPE_pixel_t unsigned char
#endif
using pixel_t = TYPE_pixel_t;

KERNEL warp_images(const pixel_t *__restrict__ images, const T *__restrict__ matrix,
                   pixel_t *__restrict__ out, int64 pixels, int H, int W, int C, double fill) {
    GRID_STRIDE(pixel, pixels) {
        const int64 n = pixel / (H * W);
        const int rest = int(pixel - n * H * W);
        const auto at = mapped<acc_t>(matrix + n * 6, rest % W, rest / W, H, W);
        const pixel_t *image = images + n * H * W * C;
        for (int c = 0; c < C; ++c) out[pixel * C + c] = bilinear(image, at, H, W, C, c, fill);
    }
}

KERNEL random_matrices(T *__restrict__ matrix, int64 count, int H, int W, double rotate,
                       double shift, double zoom, uint64 seed, uint64 offset) {
    GRID_STRIDE(n, count)
        random_map<acc_t>(matrix + n * 6, H, W, rotate, shift, zoom, seed, n, offset);
}
