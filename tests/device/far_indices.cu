// The index functions and loaders of the kernels, at rows and pixels past 2^31 elements.
#include "common/channels.cuh"
#include "gemm/gemm.cuh"
#include "conv/im2col.cuh"

// Copies a row of `count` elements as the GEMM does.
template <class Loader>
__device__ void copy_row(const Loader &loader, int row, int count, acc_t *out) {
#ifdef __CUDACC__
    auto segment = loader.segment(0);
    for (int i = 0; i < count; ++i, loader.advance(segment, 1)) {
        const T *from;
        out[i] = loader.at(loader.row(row), segment, true, from) ? acc_t(*from) : acc_t(0);
    }
#else
    load<1>(loader, row, 0, count, out);
#endif
}

// What the two loaders copy from one row, one after the other.
KERNEL far_rows(const T *__restrict__ x, T *__restrict__ out, Window g, int row, int count) {
    if (threadIdx.x > 0) return;
    copy_row(Matrix{x, count}, row, count, out);
    copy_row(Im2col<ByPixel>{x, g, count, count, {g.OH, g.OW}}, row, count, out + count);
}

// Where a part of k ends.
KERNEL far_share(int *__restrict__ end, int K, int share, int split) {
    if (threadIdx.x == 0) end[0] = Share(K, share, split).end;
}

// The pixel and channel that thread 0 of the last block comes to first, and a pixel's place.
KERNEL far_pixels(int64 *__restrict__ out, int64 pixels, int C, int height, int width) {
    if (blockIdx.x + 1 < gridDim.x || threadIdx.x > 0) return;
    bool first = true;
    GRID_STRIDE(i, pixels * C) {
        if (!first) continue;
        first = false;
        out[0] = i / C;
        out[1] = i % C;
        const Place last = place(pixels - 1, height, width);
        out[2] = last.n, out[3] = last.row, out[4] = last.column;
        i = pixels * C;
    }
}
