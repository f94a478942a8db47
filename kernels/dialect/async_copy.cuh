// Copies from global to shared memory that run beside the arithmetic (`cp.async`, from sm_80 on).
//
//   copy_elements<N>(to, from, inside)   begins a copy of N elements, or of zeros if `from` is not
//                                        inside the array; copies at once if that is 2 bytes
//   copy_async<BYTES>(to, from, valid)   begins a copy of 4, 8 or 16 BYTES; only the first `valid`
//                                        are read, the others become zero
//   commit_copies()                      makes a group of this thread's copies since its last group
//   wait_copies<N>()                     waits for all of its groups but the last N
//
// Both addresses are aligned to BYTES. Other threads see the copies after a barrier that follows
// the wait. sm_75 copies at once. `cpu` has no such words.
#pragma once

#include "dialect/dialect.cuh"

#if __CUDA_ARCH__ >= 800

template <int BYTES>
__device__ inline void copy_async(void *to, const void *from, int valid = BYTES) {
    static_assert(BYTES == 4 || BYTES == 8 || BYTES == 16, "4, 8 or 16 bytes");
    const uint32 shared = uint32(__cvta_generic_to_shared(to));
    // .ca: through the L1 cache, which holds pixels that neighbouring windows share and filters
    // that blocks of a multiprocessor share.
    asm volatile("cp.async.ca.shared.global [%0], [%1], %3, %2;" ::"r"(shared), "l"(from),
                 "r"(valid), "n"(BYTES)
                 : "memory");
}
__device__ inline void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N> __device__ inline void wait_copies() {
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

#else

template <int BYTES>
__device__ inline void copy_async(void *to, const void *from, int valid = BYTES) {
    static_assert(BYTES == 4 || BYTES == 8 || BYTES == 16, "4, 8 or 16 bytes");
    if (BYTES == 16 && valid == 16) {
        *static_cast<uint4 *>(to) = *static_cast<const uint4 *>(from);
        return;
    }
#pragma unroll
    for (int i = 0; i < BYTES / 4; ++i)
        static_cast<uint32 *>(to)[i] = i * 4 < valid ? static_cast<const uint32 *>(from)[i] : 0;
}
__device__ inline void commit_copies() {}
template <int N> __device__ inline void wait_copies() {}

#endif

template <int N, typename E>
__device__ inline void copy_elements(E *to, const E *from, bool inside) {
    constexpr int BYTES = N * sizeof(E);
    __builtin_assume(__isGlobal(from));  // gemm_stages.cuh hides where an address comes from
    if constexpr (BYTES >= 4)
        copy_async<BYTES>(to, from, inside ? BYTES : 0);
    else
        *to = inside ? *from : E(0);
}
