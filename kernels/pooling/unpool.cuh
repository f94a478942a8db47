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

// Writes dz for V neighbouring channels, from f on, of the window at a place and, for the last row
// and column of windows, in the pixels between it and the border. V divides F and f.
template <int V>
__device__ __forceinline__ void unpool_window(T *dz, const Pooling &g, const Place &at, int f,
                                              const acc_t (&dy)[V], const int (&argmax)[V]) {
    const int h = at.row * g.KH, rows = at.row + 1 == g.PH ? g.OH - h : g.KH;
    const int w = at.column * g.KW, columns = at.column + 1 == g.PW ? g.OW - w : g.KW;
    T *to = dz + ((at.n * g.OH + h) * g.OW + w) * g.F + f;
    NO_UNROLL(int i = 0; i < rows; ++i) {
        NO_UNROLL(int j = 0; j < columns; ++j) {
            const int tap = j < g.KW ? i * g.KW + j : g.KH * g.KW;
            acc_t value[V];
            UNROLL(int v = 0; v < V; ++v) value[v] = tap == argmax[v] ? dy[v] : 0;
            store_vector(to, value);
            to += g.F;
        }
        to += (g.OW - columns) * g.F;
    }
}
