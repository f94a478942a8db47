// 2-D convolution (cross-correlation) and its gradients, each one implicit GEMM over im2col.
//
//   y[n, oh, ow, f] = b[f] + sum over kh, kw, c of x[n, ih, iw, c] * w[f, kh, kw, c]
//   with ih = oh*SH - PH + kh*DH, iw = ow*SW - PW + kw*DW, zero outside the image; groups split C
//   and F into equal parts, and a part of F sees only its part of C
//
//   forward          (N*OH*OW, F)   = im2col(x)   @ w^T        k = (kh, kw, c)
//   input gradient   (N*H*W, C)     = im2col(dy)  @ w flipped  k = (kh, kw, f); with strides, one
//                                     product for each set of pixels that the same taps reach
//   filter gradient  (KH*KW*C, F)   = im2col(x)^T @ dy         k = (n, oh, ow), divided in parts
//
// shapes   x (N, H, W, C), w (F, KH, KW, C/groups), b (F), y and dy (N, OH, OW, F)
// bytes    x, w and y once each per tile column; im2col is never written
// geometry as in gemm.cuh; a block's z is group * parts of k + part
#include "gemm/both.cuh"
#include "gemm/gemm_moments.cuh"
#include "conv/im2col_near.cuh"

// y and, unless they are null, the moments of y: a block's rows are `chunks` chunks. Part p of k
// has taps and channels [p*share, (p+1)*share) of each group.
KERNEL __launch_bounds__(THREADS, BLOCKS)
conv2d_forward(const T *__restrict__ x, const T *__restrict__ w, const T *__restrict__ b,
               T *__restrict__ y, acc_t *__restrict__ means, acc_t *__restrict__ squares,
               int *__restrict__ counts, acc_t *__restrict__ sums, int *__restrict__ arrived,
               Window window, int rows, int C, int F, int groups, int relu, int chunks, int parts,
               int share) {
    const auto at = this_block();
    const int group = at.z / parts, split = at.z % parts;
    const int channels = C / groups, filters = F / groups;
    const int K = window.KH * window.KW * channels;
    const Share part(K, share, split);
    const auto a = along_outputs(
        Im2col<ByPixel>{x + group * channels, window, C, channels, {window.OH, window.OW}});
    const Matrix weights{w + (int64)group * filters * K, K};
    BlockMoments moments{means, squares, counts, y, F, chunks};
    const BiasRelu<BlockMoments::Taker> epilogue{
        y + group * filters, b ? b + group * filters : nullptr, F, relu, past_caches<T>(rows, F),
        {&moments}};
    const Block block = gemm<Rows::ALONG_OUTPUT, Rows::ALONG_OUTPUT>(
        at, a, weights, rows, filters, part.begin, part.end, epilogue, Parts{sums, arrived, parts});
    moments.finish(block, group * filters);
}

// Fused convolution, bias, max-pooling with argmax, and ReLU. A pooling window has KH x KW pixels
// and does not overlap the next; `rows` is the number of pixels in the OH x OW windows of all
// images.
KERNEL __launch_bounds__(THREADS, BLOCKS)
conv2d_pool_forward(const T *__restrict__ x, const T *__restrict__ w, const T *__restrict__ b,
                    T *__restrict__ y, uint8 *__restrict__ argmax, Window window, int rows, int C,
                    int F, int OH, int OW, int KH, int KW) {
    const int K = window.KH * window.KW * C;
    const auto a = along_outputs(Im2col<ByWindow>{x, window, C, C, {OH, OW, KH, KW}});
    gemm<Rows::ALONG_OUTPUT, Rows::ALONG_OUTPUT>(this_block(), a, Matrix{w, K}, rows, F, 0, K,
                                                 BiasPoolRelu{y, argmax, b, F, KH * KW});
}

// The gradients of filters, and of the input, two products.
//
// filters  partial sums as FilterGradient has them, then those of biases (F) if `bias` is 1;
//          split s takes output pixels [s*batch_share, (s+1)*batch_share)
// input    dx, or PastRelu's gradient. `over` slides over `source`, which is dy, at stride 1; its
//          outputs are the pixels of dx in the lattice `pixels`, `places` in all, whose gradients
//          come through the taps in the lattice `taps`. There is one part unless the lattice has
//          all pixels; part p has taps and filters [p*share, (p+1)*share)
KERNEL __launch_bounds__(THREADS, BLOCKS)
conv2d_gradients(const T *__restrict__ dy, const T *__restrict__ x, Window window, int rows,
                 int bias, acc_t *__restrict__ partial, int splits, int batch_share,
                 Blocks of_filters, const T *__restrict__ source, const T *__restrict__ w,
                 T *__restrict__ dx, const T *__restrict__ y, const uint8 *__restrict__ argmax,
                 Pooling pooling, Window over, Lattice pixels, Lattice taps, int places, int H,
                 int W, int KH, int KW, acc_t *__restrict__ sums, int *__restrict__ arrived,
                 int parts, int share, Blocks of_input, int C, int F, int groups) {
    const int channels = C / groups, filters = F / groups;
    const auto of_filter = [&](const auto &at) {
        const int group = at.z / splits, split = at.z % splits;
        const int K = window.KH * window.KW * channels;
        acc_t *const part = partial + (int64)split * (K + bias) * F;
        const auto a = along_k(
            Im2col<ByPixel>{x + group * channels, window, C, channels, {window.OH, window.OW}});
        const Matrix b{dy + group * filters, F};
        const Share pixels(rows, batch_share, split);
        gemm<Rows::ALONG_K, Rows::ALONG_K>(
            at, a, b, K, filters, pixels.begin, pixels.end,
            FilterGradient(part, K, F, group * filters), ALL_OF_K,
            SumsOverK<Operand::B, acc_t>{bias ? part + (int64)K * F + group * filters : nullptr});
    };
    const auto input = [&](const auto &at) {
        const int group = at.z / parts, split = at.z % parts;
        const Share part(taps.rows * taps.columns * filters, share, split);
        const auto a = along_outputs(
            Im2col<ByPixel>{source + group * filters, over, F, filters, {over.OH, over.OW}});
        const FlippedFilters b{
            w + (int64)group * filters * KH * KW * channels, taps, KH, KW, filters, channels};
        const AtPixels epilogue{{dx, y, argmax, pooling}, pixels, H, W, C, group * channels};
        gemm<Rows::ALONG_OUTPUT, Rows::ALONG_K>(at, a, b, places, channels, part.begin, part.end,
                                                epilogue, Parts{sums, arrived, parts});
    };
    either(of_filters, of_filter, of_input, input);
}
