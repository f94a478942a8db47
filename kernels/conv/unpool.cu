// The gradient dz of a convolution whose result was max-pooled and clipped at zero: unpool.cuh.
//
// shapes   dy, y, argmax (N, PH, PW, F); dz (N, OH, OW, F); a window has KH x KW pixels
// bytes    all once
// geometry any grid; `count` items of a window by four channels
#include "pooling/unpool.cuh"

KERNEL unpool(const T *__restrict__ dy, const T *__restrict__ y, const uint8 *__restrict__ argmax,
              T *__restrict__ dz, Pooling pooling, int64 count) {
    const int quads = ceil_div(pooling.F, 4);
    GRID_STRIDE(item, count) {
        const int64 window = item / quads;
        const int f = int(item - window * quads) * 4, channels = pooling.F - f;
        const int64 from = window * pooling.F + f;
        acc_t gradient[4], output[4];
        int tap[4];
        load_row(gradient, dy + from, channels);
        load_row(output, y + from, channels);
        load_row(tap, argmax + from, channels);
        UNROLL for (int i = 0; i < 4; ++i) if (output[i] <= 0) tap[i] = -1;
        unpool_window(dz, pooling, place(window, pooling.PH, pooling.PW), f, gradient, tap);
    }
}
