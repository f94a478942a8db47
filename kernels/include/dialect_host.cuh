// What `cpu` needs: CUDA's words for a C++ compiler, and calling a kernel.
#pragma once

#include <stdint.h>
#include <string.h>

#include "math_host.cuh"

#define __device__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)

// Before a loop of fixed length over registers.
#define UNROLL _Pragma("GCC unroll 16")

static inline float infinity() { return __builtin_inff(); }
static inline float not_a_number() { return __builtin_nanf(""); }

// The lowest bit that is set; one must be.
static inline int first_bit(unsigned long long bits) { return __builtin_ctzll(bits); }

template <typename E> static inline E sin_pi(E x) { return sin(E(3.141592653589793) * x); }
template <typename E> static inline E cos_pi(E x) { return cos(E(3.141592653589793) * x); }

// A kernel with its arguments, each by address, as cudaLaunchKernel takes them.
template <typename... P> struct Call {
    void (*kernel)(P...);
    void **arguments;

    template <int... I> struct Indices {};
    template <int N, int... I> struct Count : Count<N - 1, N - 1, I...> {};
    template <int... I> struct Count<0, I...> { using type = Indices<I...>; };

    template <int... I> __attribute__((no_sanitize("thread"))) void unpack(Indices<I...>) const {
        kernel(*static_cast<P *>(arguments[I])...);
    }
    __attribute__((no_sanitize("thread"))) void operator()() const {
        unpack(typename Count<sizeof...(P)>::type());
    }
};
