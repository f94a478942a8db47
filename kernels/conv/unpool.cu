// The gradient of what was max-pooled and clipped at zero, in windows that touch and do not
// overlap.
//
//   dz[n, oh, ow, f] = dy[n, ph, pw, f]  where argmax is this pixel of the window, unless y <= 0
//
// and 0 for all other pixels, among them those in no window.
//
// shapes   dy, y, argmax (N, PH, PW, F); dz (N, OH, OW, F); a window has KH x KW pixels
// bytes    all once
// geometry any grid; `count` items of a window, or what the border leaves of one, by four channels
#include "dialect/dialect.cuh"
#include "common/window.cuh"

KERNEL unpool(const T *__restrict__ dy, const T *__restrict__ y, const uint8 *__restrict__ argmax,
              T *__restrict__ dz, int64 count, int OH, int OW, int F, int PH, int PW, int KH,
              int KW) {
    const int quads = ceil_div(F, 4), rows = ceil_div(OH, KH), columns = ceil_div(OW, KW);
    GRID_STRIDE(item, count) {
        const int64 window = item / quads;
        const int f = int(item - window * quads) * 4, channels = F - f;
        const Place at = place(window, rows, columns);
        acc_t gradient[4] = {};
        int tap[4] = {};
        if (at.row < PH && at.column < PW) {
            const int64 from = ((at.n * PH + at.row) * PW + at.column) * F + f;
            acc_t output[4];
            load_row(gradient, dy + from, channels);
            load_row(output, y + from, channels);
            load_row(tap, argmax + from, channels);
            UNROLL for (int i = 0; i < 4; ++i) if (output[i] <= 0) tap[i] = -1;
        }
        const int h = at.row * KH, w = at.column * KW;
        for (int kh = 0; kh < smaller(KH, OH - h); ++kh)
            for (int kw = 0; kw < smaller(KW, OW - w); ++kw) {
                acc_t value[4];
                UNROLL for (int i = 0; i < 4; ++i) value[i] =
                    tap[i] == kh * KW + kw ? gradient[i] : 0;
                store_row(dz + ((at.n * OH + h + kh) * OW + w + kw) * F + f, value, channels);
            }
    }
}
