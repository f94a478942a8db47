// What `cpu` and `simt` have in common: CUDA's words for a C++ compiler, and calling a kernel.
#pragma once

#include <stdint.h>
#include <string.h>

#define __device__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)

// Before a loop of fixed length over registers.
#define UNROLL _Pragma("GCC unroll 16")

static inline float infinity() { return __builtin_inff(); }
static inline float not_a_number() { return __builtin_nanf(""); }

// The lowest bit that is set; one must be.
static inline int first_bit(unsigned long long bits) { return __builtin_ctzll(bits); }

// The C library's functions that kernels call. The compiler knows them without <math.h>, which
// takes it longer to read than a small kernel to compile.
#define LIBRARY_FUNCTION(name)                                           \
    static inline float name(float x) { return __builtin_##name##f(x); } \
    static inline double name(double x) { return __builtin_##name(x); }
LIBRARY_FUNCTION(cos)
LIBRARY_FUNCTION(exp)
LIBRARY_FUNCTION(floor)
LIBRARY_FUNCTION(log)
LIBRARY_FUNCTION(sin)
LIBRARY_FUNCTION(sqrt)

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
