// The dialect's words on `cuda`, compiled by NVRTC, besides CUDA's own.
#pragma once

// Before a loop of fixed length over registers.
#define UNROLL _Pragma("unroll")

__device__ inline float infinity() { return __int_as_float(0x7f800000); }
__device__ inline float not_a_number() { return __int_as_float(0x7fffffff); }

// sin and cos of pi x. In radians, the reduction of a large double takes a stack frame.
template <typename E> __device__ inline E sin_pi(E x) { return sinpi(x); }
template <typename E> __device__ inline E cos_pi(E x) { return cospi(x); }

// The block's dynamic shared memory, of the size that the launch asks for.
#define DYNAMIC_SHARED(type, name)                                        \
    extern __shared__ __align__(16) unsigned char dynamic_shared_bytes[]; \
    type *name = reinterpret_cast<type *>(dynamic_shared_bytes)

// The lowest bit that is set; one must be.
__device__ inline int first_bit(unsigned long long bits) { return __ffsll(bits) - 1; }
