// The dialect: all that a kernel may use besides plain CUDA C++.
//
// One text, two targets. Under NVRTC (`cuda`) the words mean what CUDA says. Under a C++ compiler
// (`cpu`) a block has ONE thread: barriers vanish, a block-stride loop is a plain loop that the
// compiler vectorises, and LANES consecutive elements form one SIMD register. A header with
// different text for the targets tests __CUDACC__.
//
// A kernel is correct for any block size that its static_asserts admit, 1 included.
#pragma once

#if defined(__CUDACC__)
#include "dialect/dialect_cuda.cuh"
#else
#include "dialect/dialect_cpu.cuh"
#endif

// The element type of the arrays; the runtime defines TYPE_T, editors see float.
#ifndef TYPE_T
#define TYPE_T float
#endif
using T = TYPE_T;

using int32 = int;
using int64 = long long;
using uint8 = unsigned char;
using uint16 = unsigned short;
using uint32 = unsigned int;
using uint64 = unsigned long long;

// Sums are taken in double for double and in float for everything narrower.
template <typename E> struct Accumulator { using type = float; };
template <> struct Accumulator<double> { using type = double; };
using acc_t = Accumulator<T>::type;

template <typename E> __device__ inline E smaller(E a, E b) { return b < a ? b : a; }
template <typename E> __device__ inline E larger(E a, E b) { return a < b ? b : a; }
__device__ inline int ceil_div(int a, int b) { return (a + b - 1) / b; }

// Operations of reductions.
struct Sum {
    template <typename E> __device__ E operator()(E a, E b) const { return a + b; }
};
struct Or {
    __device__ int operator()(int a, int b) const { return a | b; }
};

// A constant as an argument, for generic lambdas.
template <int N> struct Number { static constexpr int value = N; };

// NaN is not equal to itself. (CuPy compiles without -ffast-math.)
template <typename E> __device__ inline bool is_nan(E value) { return value != value; }

// Writes `length` elements, STEP apart, to `out`: the source's from `begin` to `end`, else zeros.
template <int STEP, typename To, typename From>
__device__ __forceinline__ void copy_between(To *out, const From *source, int begin, int end,
                                             int length) {
#if defined(MASKED_LANES)
    if constexpr (STEP == 1) return copy_lanes_between(out, source, begin, end, length);
#endif
    for (int i = 0; i < begin; ++i) out[i * STEP] = 0;
    for (int i = begin; i < end; ++i) out[i * STEP] = To(source[i]);
    for (int i = end; i < length; ++i) out[i * STEP] = 0;
}

#define KERNEL extern "C" __global__ void
#define OTHER_KERNEL template <int> __global__ void  // an entry point that is not compiled
