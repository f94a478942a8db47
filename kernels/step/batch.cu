// Gathers a step's batch from a data set on the device, and counts losses, hits and steps.
//
//   row n of the batch is image i = order[taken + n], with label i
//   gather            out[n] = (image - mean) / std
//   gather, augmented the same for the image warped by its own random map; see warp.cuh
//   count             as count.cuh has it, of a loss that is given
//
// counters = {steps counted, images of `order` taken, steps taken}: a replayed step finds its batch
// by them.
//
// shapes   images (N, H, W, C) of pixel_t; labels, order (N) int64, order within [0, N), which the
//          caller guarantees; out (rows, H, W, C) of T; out_labels (rows); outputs (rows, classes)
// bytes    a batch's images once, out once
// geometry gather: one block per row, `framed` as in augment.cu; count: one block
#include "dialect/lanes.cuh"
#include "images/warp.cuh"
#include "step/count.cuh"

#ifndef TYPE_pixel_t
#define TYPE_pixel_t unsigned char
#endif
using pixel_t = TYPE_pixel_t;

KERNEL gather_batch(const pixel_t *__restrict__ images, const int64 *__restrict__ labels,
                    const int64 *__restrict__ order, const int64 *__restrict__ counters,
                    T *__restrict__ out, int64 *__restrict__ out_labels, int elements, double mean,
                    double inv_std) {
    const int64 n = blockIdx.x, i = order[counters[1] + n];
    const pixel_t *image = images + i * elements;
    T *y = out + n * elements;
    const acc_t middle = acc_t(mean), scale = acc_t(inv_std);
    BLOCK_STRIDE(e, elements) y[e] = T((acc_t(image[e]) - middle) * scale);
    if (threadIdx.x == 0) out_labels[n] = labels[i];
}

KERNEL gather_augmented_batch(const pixel_t *__restrict__ images, const int64 *__restrict__ labels,
                              const int64 *__restrict__ order, const int64 *__restrict__ counters,
                              T *__restrict__ out, int64 *__restrict__ out_labels, int H, int W,
                              int C, double mean, double inv_std, double rotate, double shift,
                              double zoom, uint64 seed, uint64 offset, int framed) {
    using value_t = Accumulator<pixel_t>::type;
    DYNAMIC_SHARED(value_t, memory);
    const int64 n = blockIdx.x, i = order[counters[1] + n];
    const Image<pixel_t> image{images + i * H * W * C, H, W, C, value_t(0)};
    T *y = out + n * H * W * C;
    const acc_t middle = acc_t(mean), scale = acc_t(inv_std);
    __shared__ float m[6];  // float as in kernels.augment, whatever T is
    if (threadIdx.x == 0) {
        random_map<float>(m, H, W, rotate, shift, zoom, seed, n, offset + uint64(counters[0]));
        out_labels[n] = labels[i];
    }
    __syncthreads();
    const auto store = [&](int x, int row, int c, const pixel_t(&values)[LANES]) {
        T *to = y + (row * W + x) * C + c;
        FIRST_LANES(l, LANES, smaller(LANES, W - x))
            to[l * C] = T((acc_t(values[l]) - middle) * scale);
    };
    warp_image<float, LANES>(image, framed ? memory : nullptr, m, store);
}

KERNEL count_batch(const T *__restrict__ loss, const T *__restrict__ outputs,
                   const int64 *__restrict__ labels, double *__restrict__ totals,
                   int64 *__restrict__ counters, int64 rows, int classes) {
    double hits = 0;
    BLOCK_STRIDE(row, rows) {
        const int64 label = labels[row];
        if (label >= 0 && label < classes)
            hits += is_hit(outputs + (int64)row * classes, label, classes);
    }
    hits = block_reduce(hits, Sum());
    if (threadIdx.x == 0) count(double(loss[0]), hits, rows, totals, counters);
}
