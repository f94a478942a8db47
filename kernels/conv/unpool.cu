// The gradient dz of a convolution whose result was max-pooled and clipped at zero: unpool.cuh.
//
// shapes   dy, y, argmax (N, PH, PW, F); dz (N, OH, OW, F); a window has KH x KW pixels
// bytes    all once
// geometry any grid; a thread takes `width` channels of a window, 4 or 1
#include "pooling/unpool.cuh"

template <int V>
__device__ void unpool_all(const T *dy, const T *y, const uint8 *argmax, T *dz,
                           const Pooling &pooling, int64 count) {
    GRID_STRIDE(item, count) {
        acc_t gradient[V], output[V];
        int tap[V];
        load_vector(gradient, dy + item * V);
        load_vector(output, y + item * V);
        load_vector(tap, argmax + item * V);
        UNROLL(int i = 0; i < V; ++i)
            if (output[i] <= 0) tap[i] = -1;
        const int64 window = item * V / pooling.F;
        const int f = int(item * V - window * pooling.F);
        unpool_window(dz, pooling, place(window, pooling.PH, pooling.PW), f, gradient, tap);
    }
}

KERNEL unpool(const T *__restrict__ dy, const T *__restrict__ y, const uint8 *__restrict__ argmax,
              T *__restrict__ dz, Pooling pooling, int64 count, int width) {
    if (width == 4)
        unpool_all<4>(dy, y, argmax, dz, pooling, count);
    else
        unpool_all<1>(dy, y, argmax, dz, pooling, count);
}
