// The functions that <math.h> and CUDA have in common, for a C++ compiler.
//
// They wrap compiler builtins, because reading <math.h> takes longer than compiling a small kernel.
// The kernels here call few of them, but a user's kernel may call any.
#pragma once

#define OF_ONE(name)                                                        \
    static inline double name(double x) { return __builtin_##name(x); }     \
    static inline float name##f(float x) { return __builtin_##name##f(x); } \
    static inline float name(float x) { return name##f(x); }
OF_ONE(acos)
OF_ONE(acosh)
OF_ONE(asin)
OF_ONE(asinh)
OF_ONE(atan)
OF_ONE(atanh)
OF_ONE(cbrt)
OF_ONE(ceil)
OF_ONE(cos)
OF_ONE(cosh)
OF_ONE(erf)
OF_ONE(erfc)
OF_ONE(exp)
OF_ONE(exp2)
OF_ONE(expm1)
OF_ONE(fabs)
OF_ONE(floor)
OF_ONE(lgamma)
OF_ONE(log)
OF_ONE(log10)
OF_ONE(log1p)
OF_ONE(log2)
OF_ONE(nearbyint)
OF_ONE(rint)
OF_ONE(round)
OF_ONE(sin)
OF_ONE(sinh)
OF_ONE(sqrt)
OF_ONE(tan)
OF_ONE(tanh)
OF_ONE(tgamma)
OF_ONE(trunc)

#define OF_TWO(name)                                                                    \
    static inline double name(double x, double y) { return __builtin_##name(x, y); }    \
    static inline float name##f(float x, float y) { return __builtin_##name##f(x, y); } \
    static inline float name(float x, float y) { return name##f(x, y); }
OF_TWO(atan2)
OF_TWO(copysign)
OF_TWO(fdim)
OF_TWO(fmax)
OF_TWO(fmin)
OF_TWO(fmod)
OF_TWO(hypot)
OF_TWO(nextafter)
OF_TWO(pow)
OF_TWO(remainder)

static inline double fma(double x, double y, double z) { return __builtin_fma(x, y, z); }
static inline float fmaf(float x, float y, float z) { return __builtin_fmaf(x, y, z); }
static inline float fma(float x, float y, float z) { return fmaf(x, y, z); }
static inline double ldexp(double x, int power) { return __builtin_ldexp(x, power); }
static inline float ldexpf(float x, int power) { return __builtin_ldexpf(x, power); }
static inline float ldexp(float x, int power) { return ldexpf(x, power); }

template <typename E> static inline bool isfinite(E x) { return __builtin_isfinite(x); }
template <typename E> static inline bool isinf(E x) { return __builtin_isinf(x); }
template <typename E> static inline bool isnan(E x) { return __builtin_isnan(x); }
template <typename E> static inline bool signbit(E x) { return __builtin_signbit(x); }
