// The dialect's words on `simt`: full blocks of 32-lane warps, each lane a fiber of simt.cpp.
#pragma once

#include "dialect_host.cuh"
#include "simt.h"

#define __global__ __attribute__((noinline))
#define __shared__ static  // one block runs at a time; simt.cpp knows what a block has written

#define threadIdx (simt::registers.thread)
#define blockIdx (simt::registers.block)
#define blockDim (simt::registers.block_size)
#define gridDim (simt::registers.grid_size)

#define __syncthreads() simt::barrier(__LINE__)
#define __syncwarp(...) ((void)simt::exchange(__LINE__, simt::mask(__VA_ARGS__), simt::self(), 0))
#define __ballot_sync(mask, value) simt::ballot(__LINE__, mask, value)
#define __shfl_sync(mask, value, lane) simt::shuffle(__LINE__, mask, value, (lane) % 32)
#define __shfl_xor_sync(mask, value, bits) \
    simt::shuffle(__LINE__, mask, value, simt::self() ^ (bits))
#define __shfl_down_sync(mask, value, by) \
    simt::shuffle(__LINE__, mask, value,  \
                  simt::self() + (by) < 32 ? simt::self() + (by) : simt::self())
#define __shfl_up_sync(mask, value, by) \
    simt::shuffle(__LINE__, mask, value, simt::self() >= (by) ? simt::self() - (by) : simt::self())

namespace simt {
static inline unsigned self() { return registers.thread.x % 32; }
static inline unsigned mask(unsigned lanes = 0xffffffffu) { return lanes; }
template <typename E> static inline E shuffle(int line, unsigned mask, E value, unsigned source) {
    static_assert(sizeof(E) <= 8, "a shuffle moves at most 8 bytes");
    unsigned long long bits = 0;
    memcpy(&bits, &value, sizeof value);
    bits = exchange(line, mask, source, bits);
    memcpy(&value, &bits, sizeof value);
    return value;
}
}  // namespace simt

// Lanes are fibers that give way only at barriers and warp operations: nothing comes between.
template <typename E> __attribute__((no_sanitize("thread"))) E atomicAdd(E *p, E value) {
    const E before = *p;
    *p = before + value;
    return before;
}

#define DYNAMIC_SHARED(type, name) type *name = reinterpret_cast<type *>(simt::dynamic_shared())

// The runtime appends one of these per entry point.
#define EXPORT_LAUNCH(name)                                                               \
    extern "C" __attribute__((visibility("default"), no_sanitize("thread"))) const char * \
    launch_##name(const simt::Launch *launch, void **arguments) {                         \
        return launch_simt(name, *launch, arguments);                                     \
    }

template <typename... P>
__attribute__((no_sanitize("thread"))) static const char *
launch_simt(void (*kernel)(P...), const simt::Launch &launch, void **arguments) {
    Call<P...> call{kernel, arguments};
    const auto body = [](void *context) __attribute__((no_sanitize("thread"))) {
        (*static_cast<Call<P...> *>(context))();
    };
    return simt::run(launch, body, &call, reinterpret_cast<const void *>(kernel));
}
