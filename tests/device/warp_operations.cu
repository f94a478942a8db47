// Each word of the dialect for warps and shared memory, once. y[i] = what thread i got.
#include "dialect/dialect.cuh"

KERNEL shuffle_index(int *__restrict__ y) {
    y[threadIdx.x] = __shfl_sync(0xffffffffu, int(threadIdx.x), threadIdx.x + 5);
}
KERNEL shuffle_xor(int *__restrict__ y) {
    y[threadIdx.x] = __shfl_xor_sync(0xffffffffu, int(threadIdx.x), 9);
}
KERNEL shuffle_up(int *__restrict__ y) {
    y[threadIdx.x] = __shfl_up_sync(0xffffffffu, int(threadIdx.x), 3);
}
KERNEL shuffle_down(int *__restrict__ y) {
    y[threadIdx.x] = __shfl_down_sync(0xffffffffu, int(threadIdx.x), 3);
}
KERNEL ballot(int *__restrict__ y) {
    y[threadIdx.x] = int(__ballot_sync(0xffffffffu, threadIdx.x % 32 % 3 == 0));
}

// Two groups of a warp in two branches, each with a mask of its own.
KERNEL half_warps(int *__restrict__ y) {
    int value = threadIdx.x;
    if (threadIdx.x % 32 < 16)
        value = __shfl_xor_sync(0x0000ffffu, value, 1);
    else
        value = __shfl_xor_sync(0xffff0000u, value, 1);
    y[threadIdx.x] = value;
}

KERNEL syncwarp(int *__restrict__ y) {
    __shared__ int tile[64];
    const int warp = threadIdx.x / 32 * 32, lane = threadIdx.x % 32;
    tile[threadIdx.x] = threadIdx.x;
    __syncwarp();
    y[threadIdx.x] = tile[warp + 31 - lane];
    __syncwarp();
    tile[threadIdx.x] = 0;
}

// A __syncwarp where a __syncthreads is needed: the partner is in the other warp.
KERNEL syncwarp_across(int *__restrict__ y) {
    __shared__ int tile[64];
    tile[threadIdx.x] = threadIdx.x;
    __syncwarp();
    y[threadIdx.x] = tile[63 - threadIdx.x];
}

KERNEL dynamic_reverse(const T *__restrict__ x, T *__restrict__ y, int count) {
    DYNAMIC_SHARED(T, tile);
    BLOCK_STRIDE(i, count) tile[i] = x[i];
    __syncthreads();
    BLOCK_STRIDE(i, count) y[i] = tile[count - 1 - i];
}

KERNEL histogram(int *__restrict__ y) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    atomicAdd(y + i % 7, 1);
}

// Each half waits for the other at an operation that the other never comes to.
KERNEL crossed_masks(int *__restrict__ y) {
    if (threadIdx.x < 16)
        y[threadIdx.x] = __shfl_sync(0xffffffffu, 1, 0);
    else
        y[threadIdx.x] = __shfl_sync(0xffffffffu, 2, 0);
}
