// Bilinear affine warps of images, and random ones.
//
//   (u, v) = matrix[n] (x, y, 1)^T          output pixel (x, y) to input position (u, v)
//   out[n, y, x, c] = sum over the four neighbours of (u, v) of their weight times their value;
//   a neighbour outside the image has the value `fill`
//
//   random: about the image's centre m, with an angle a, a zoom z and a shift s per image,
//   (u, v) = R(-a) / z * ((x, y) - m - s) + m
//
// shapes   images, out (N, H, W, C), element type pixel_t; matrix (N, 2, 3) of T
// bytes    images once (its neighbours from cache), out once
// geometry any grid; warp: a thread an output pixel; matrices: a thread an image
#include "random.cuh"

#ifndef TYPE_pixel_t
#define TYPE_pixel_t unsigned char
#endif
using pixel_t = TYPE_pixel_t;

// Values are summed in the images' precision, positions taken in the matrices'.
using value_t = Accumulator<pixel_t>::type;

template <typename E> struct Pixel {
    static __device__ E from(value_t value) { return E(value); }
};
template <> struct Pixel<uint8> {  // to nearest; weights sum to 1, so only fill can leave [0, 255]
    static __device__ uint8 from(value_t value) {
        return uint8(smaller(larger(value + value_t(0.5), value_t(0)), value_t(255)));
    }
};

KERNEL warp_images(const pixel_t *__restrict__ images, const T *__restrict__ matrix,
                   pixel_t *__restrict__ out, int64 pixels, int H, int W, int C, double fill) {
    GRID_STRIDE(pixel, pixels) {
        const int64 n = pixel / (H * W);
        const int rest = int(pixel - n * H * W);
        const acc_t y = acc_t(rest / W), x = acc_t(rest % W);
        const T *m = matrix + n * 6;
        const acc_t u = acc_t(m[0]) * x + acc_t(m[1]) * y + acc_t(m[2]);
        const acc_t v = acc_t(m[3]) * x + acc_t(m[4]) * y + acc_t(m[5]);
        // Far outside or NaN: no neighbour is in the image, and the conversion to int is not
        // defined. Negated so that NaN takes this way too.
        const bool near = u > -1 && u < W && v > -1 && v < H;
        const int left = near ? int(floor(u)) : -2, top = near ? int(floor(v)) : -2;
        const acc_t right_share = near ? u - left : acc_t(0), low_share = near ? v - top : acc_t(0);
        for (int c = 0; c < C; ++c) {
            value_t sum = 0;
            for (int j = 0; j < 4; ++j) {
                const int column = left + (j & 1), row = top + (j >> 1);
                const acc_t share = (j & 1 ? right_share : acc_t(1) - right_share) *
                                    (j >> 1 ? low_share : acc_t(1) - low_share);
                const bool inside = column >= 0 && column < W && row >= 0 && row < H;
                const int64 neighbour = ((n * H + row) * W + column) * C + c;
                sum += value_t(share) * (inside ? value_t(images[neighbour]) : value_t(fill));
            }
            out[pixel * C + c] = Pixel<pixel_t>::from(sum);
        }
    }
}

// rotate in degrees, shift in pixels, zoom a fraction: each drawn uniformly from [-value, value].
KERNEL random_matrices(T *__restrict__ matrix, int64 count, int H, int W, double rotate,
                       double shift, double zoom, uint64 seed, uint64 offset) {
    GRID_STRIDE(n, count) {
        const Random4 random = philox(seed, n, offset), more = philox(seed, n, ~offset);
        const acc_t half_turns = acc_t(rotate / 180) * (2 * random.uniform(0) - 1);
        const acc_t scale = 1 / (1 + acc_t(zoom) * (2 * random.uniform(1) - 1));
        const acc_t shift_x = acc_t(shift) * (2 * random.uniform(2) - 1);
        const acc_t shift_y = acc_t(shift) * (2 * more.uniform(0) - 1);
        const acc_t cosine = cos_pi(half_turns) * scale, sine = sin_pi(half_turns) * scale;
        const acc_t centre_x = acc_t(W - 1) / 2, centre_y = acc_t(H - 1) / 2;
        const acc_t from_x = centre_x + shift_x, from_y = centre_y + shift_y;
        T *m = matrix + n * 6;
        m[0] = T(cosine), m[1] = T(sine), m[2] = T(centre_x - cosine * from_x - sine * from_y);
        m[3] = T(-sine), m[4] = T(cosine), m[5] = T(centre_y + sine * from_x - cosine * from_y);
    }
}
