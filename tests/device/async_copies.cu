// Each word of async_copy.cuh: a warp takes a row of 64 to shared memory and writes it backwards.
#include "dialect/async_copy.cuh"

// By 16 bytes, of which the last copy's are partly zeros.
KERNEL copy_wide(const float *__restrict__ x, float *__restrict__ y, int count) {
    alignas(16) __shared__ float row[64];
    const int left = count - int(threadIdx.x) * 4;
    if (threadIdx.x < 16)
        copy_async<16>(row + threadIdx.x * 4, x + threadIdx.x * 4,
                       smaller(larger(left, 0), 4) * int(sizeof(float)));
    commit_copies();
    wait_copies<0>();
    __syncthreads();
    BLOCK_STRIDE(i, 64) y[i] = row[63 - i];
}

// By 4 bytes, in two groups: the first is used while the second is on its way.
KERNEL copy_narrow(const float *__restrict__ x, float *__restrict__ y, int count) {
    __shared__ float row[64];
    for (int half = 0; half < 2; ++half) {
        const int i = half * 32 + threadIdx.x;
        copy_async<4>(row + i, x + i, i < count ? 4 : 0);
        commit_copies();
    }
    wait_copies<1>();
    __syncthreads();
    y[63 - threadIdx.x] = row[threadIdx.x];
    wait_copies<0>();
    __syncthreads();
    y[31 - threadIdx.x] = row[32 + threadIdx.x];
}
