// The gradient of the input of max-pooling and a ReLU, for windows that do not overlap and leave no
// gaps.
//
//   dz[n, oh, ow, f] = dy[n, ph, pw, f]  where argmax is this pixel of the window, unless y <= 0
//
// and 0 for all other pixels, among them those in no window.
#pragma once

#include "dialect/dialect.cuh"
#include "common/window.cuh"

// Windows of KH x KW pixels, PH x PW of them over OH x OW pixels of F channels.
struct Pooling { int OH, OW, F, PH, PW, KH, KW; };

// Writes dz for V neighbouring channels of one window, whose elements of y begin at `from`, and,
// for the last row and column of windows, in the pixels between it and the border. V divides F and
// `from`.
template <int V>
__device__ __forceinline__ void unpool_window(T *dz, const Pooling &g, int64 from,
                                              const acc_t (&dy)[V], const int (&argmax)[V]) {
    const int64 window = from / g.F;
    const int f = int(from - window * g.F);
    const Place at = place(window, g.PH, g.PW);
    const int h = at.row * g.KH, last_h = at.row + 1 == g.PH ? g.OH : h + g.KH;
    const int w = at.column * g.KW, last_w = at.column + 1 == g.PW ? g.OW : w + g.KW;
    NO_UNROLL(int oh = h; oh < last_h; ++oh)
        NO_UNROLL(int ow = w; ow < last_w; ++ow) {
            const int tap = ow < w + g.KW ? (oh - h) * g.KW + ow - w : g.KH * g.KW;
            acc_t value[V];
            UNROLL(int i = 0; i < V; ++i) value[i] = tap == argmax[i] ? dy[i] : 0;
            store_vector(dz + ((at.n * g.OH + oh) * g.OW + ow) * g.F + f, value);
        }
}
