// Dynamic loss scaling, entirely on the device, so that it can be part of a CUDA graph.
//
// The loss's gradient is multiplied by `scale`, so that fp16 products do not lose small gradients.
// If that makes a gradient infinite or NaN, the step is skipped and the next scale is smaller;
// after `interval` steps without, it is larger. Scales are powers of two, so scaling does not
// round.
//
//   state    {scale, unscale, steps}: unscale is 1 / scale for this step, or 0 to skip it; steps
//            counts the steps since the scale last changed
//   bytes    the gradient once
//   geometry gradient_overflow: any grid; loss_scale_update: one block of any size
#include "dialect/dialect.cuh"

// overflow[block] = whether the block's share of the gradient has an infinity or NaN.
KERNEL gradient_overflow(const T *__restrict__ grad, int *__restrict__ overflow, int64 count) {
    int found = 0;
    GRID_STRIDE(i, count) found |= is_nan(acc_t(grad[i]) - acc_t(grad[i]));
    found = block_reduce(found, Or());
    if (threadIdx.x == 0) overflow[blockIdx.x] = found;
}

KERNEL loss_scale_update(const int *__restrict__ overflow, acc_t *__restrict__ state, int blocks,
                         double growth, double backoff, int interval, double largest) {
    int found = 0;
    BLOCK_STRIDE(i, blocks) found |= overflow[i];
    found = block_reduce(found, Or());
    if (threadIdx.x > 0) return;
    const acc_t scale = state[0], steps = state[2] + 1;
    const bool grown = !found && steps >= interval;
    state[0] = found   ? larger(scale * acc_t(backoff), acc_t(1))
               : grown ? smaller(scale * acc_t(growth), acc_t(largest))
                       : scale;
    state[1] = found ? acc_t(0) : 1 / scale;
    state[2] = found || grown ? acc_t(0) : steps;
}
