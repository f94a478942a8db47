// Bilinear affine warps of images, by given or random maps; see warp.cuh.
//
//   (u, v) = matrix[n] (x, y, 1)^T          output pixel (x, y) to input position (u, v)
//   out[n, y, x, c] = sum over the four neighbours of (u, v) of their weight times their value;
//   a neighbour outside the image has the value `fill`
//
// shapes   images, out (N, H, W, C), element type pixel_t; matrix (N, 2, 3) of T
// bytes    images once (its neighbours from cache), out once
// geometry warp: grid (images, parts of their rows), a thread computes LANES pixels of a row;
//          `framed` if shared memory has room for that; matrices: any grid, one thread per image
#include "dialect/lanes.cuh"
#include "images/warp.cuh"

#ifndef TYPE_pixel_t
#define TYPE_pixel_t unsigned char
#endif
using pixel_t = TYPE_pixel_t;

KERNEL warp_images(const pixel_t *__restrict__ images, const T *__restrict__ matrix,
                   pixel_t *__restrict__ out, int H, int W, int C, double fill, int framed) {
    using value_t = Accumulator<pixel_t>::type;
    DYNAMIC_SHARED(value_t, memory);
    const int64 n = blockIdx.x, first = n * H * W * C;
    const Image<pixel_t> image{images + first, H, W, C, value_t(fill)};
    const auto store = [&](int x, int y, int c, const pixel_t(&values)[LANES]) {
        pixel_t *to = out + first + (y * W + x) * C + c;
        FIRST_LANES(l, LANES, smaller(LANES, W - x)) to[l * C] = values[l];
    };
    warp_image<acc_t, LANES>(image, framed ? memory : nullptr, matrix + n * 6, store);
}

KERNEL random_matrices(T *__restrict__ matrix, int64 count, int H, int W, double rotate,
                       double shift, double zoom, uint64 seed, uint64 offset) {
    GRID_STRIDE(n, count)
        random_map<acc_t>(matrix + n * 6, H, W, rotate, shift, zoom, seed, n, offset);
}
