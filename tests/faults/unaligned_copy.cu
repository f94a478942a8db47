// 16 bytes from an address that only 4 divide.
#include "dialect/async_copy.cuh"

KERNEL unaligned_copy(const T *__restrict__ x, T *__restrict__ y) {
    alignas(16) __shared__ float tile[4];
    copy_async<16>(tile, x + 1);  // FAULT
    commit_copies();
    wait_copies<0>();
    for (int i = 0; i < 4; ++i) y[i] = tile[i];
}
