// The AVX-512 intrinsics that the dialect uses, by their names in <immintrin.h>.
//
// GCC takes half a second to read that header, longer than to compile most kernels. The header's
// functions wrap compiler builtins; the ones used here are wrapped again without it. Other
// compilers include the header, and so does a GCC that lacks one of the builtins or compiles for
// the first processors with AVX-512.
#pragma once

#if defined(__has_builtin) && defined(__AVX512BW__) && defined(__AVX512VL__) && !defined(__clang__)
#define HAS(name) __has_builtin(__builtin_ia32_##name)
#define BUILTINS                                                                                \
    (HAS(loadups512_mask) && HAS(loadupd512_mask) && HAS(loaddquqi128_mask) &&                  \
     HAS(storeups512_mask) && HAS(storeupd512_mask) && HAS(storedquqi128_mask) &&               \
     HAS(pmovdb512_mask) && HAS(pmovqb512_mask) && HAS(pmovzxbd512_mask) &&                     \
     HAS(pmovzxbq512_mask) && HAS(ptestmd512) && HAS(ptestmq512) && HAS(minps512_mask) &&       \
     HAS(minpd512_mask) && HAS(maxps512_mask) && HAS(maxpd512_mask) && HAS(scalefps512_mask) && \
     HAS(scalefpd512_mask))
#endif

#if !BUILTINS
#include <immintrin.h>
#else
typedef float __m512 __attribute__((vector_size(64), may_alias));
typedef double __m512d __attribute__((vector_size(64), may_alias));
typedef long long __m512i __attribute__((vector_size(64), may_alias));
typedef long long __m128i __attribute__((vector_size(16), may_alias));
typedef int int_x16 __attribute__((vector_size(64)));
typedef long long int64_x8 __attribute__((vector_size(64)));
typedef char int8_x16 __attribute__((vector_size(16)));
typedef unsigned short __mmask16;
typedef unsigned char __mmask8;

#define INTRINSIC static inline __attribute__((always_inline, artificial))
#define ALL_16 __mmask16(-1)
#define ALL_8 __mmask8(-1)
#define ROUNDING 4  // the processor's current rounding mode

INTRINSIC __m512 _mm512_set1_ps(float a) { return a - __m512{}; }
INTRINSIC __m512d _mm512_set1_pd(double a) { return a - __m512d{}; }

INTRINSIC __m512 _mm512_mask_loadu_ps(__m512 other, __mmask16 mask, const void *p) {
    return __builtin_ia32_loadups512_mask((const float *)p, other, mask);
}
INTRINSIC __m512d _mm512_mask_loadu_pd(__m512d other, __mmask8 mask, const void *p) {
    return __builtin_ia32_loadupd512_mask((const double *)p, other, mask);
}
INTRINSIC __m128i _mm_maskz_loadu_epi8(__mmask16 mask, const void *p) {
    return (__m128i)__builtin_ia32_loaddquqi128_mask((const char *)p, int8_x16{}, mask);
}
INTRINSIC void _mm512_mask_storeu_ps(void *p, __mmask16 mask, __m512 a) {
    __builtin_ia32_storeups512_mask((float *)p, a, mask);
}
INTRINSIC void _mm512_mask_storeu_pd(void *p, __mmask8 mask, __m512d a) {
    __builtin_ia32_storeupd512_mask((double *)p, a, mask);
}
INTRINSIC void _mm_mask_storeu_epi8(void *p, __mmask16 mask, __m128i a) {
    __builtin_ia32_storedquqi128_mask((char *)p, (int8_x16)a, mask);
}

INTRINSIC __m128i _mm512_cvtepi32_epi8(__m512i a) {
    return (__m128i)__builtin_ia32_pmovdb512_mask((int_x16)a, int8_x16{}, ALL_16);
}
INTRINSIC __m128i _mm512_cvtepi64_epi8(__m512i a) {
    return (__m128i)__builtin_ia32_pmovqb512_mask(a, int8_x16{}, ALL_8);
}
INTRINSIC __m512i _mm512_cvtepu8_epi32(__m128i a) {
    return (__m512i)__builtin_ia32_pmovzxbd512_mask((int8_x16)a, int_x16{}, ALL_16);
}
INTRINSIC __m512i _mm512_cvtepu8_epi64(__m128i a) {
    return __builtin_ia32_pmovzxbq512_mask((int8_x16)a, int64_x8{}, ALL_8);
}
INTRINSIC __mmask16 _mm512_test_epi32_mask(__m512i a, __m512i b) {
    return __builtin_ia32_ptestmd512((int_x16)a, (int_x16)b, ALL_16);
}
INTRINSIC __mmask8 _mm512_test_epi64_mask(__m512i a, __m512i b) {
    return __builtin_ia32_ptestmq512(a, b, ALL_8);
}

INTRINSIC __m512 _mm512_min_ps(__m512 a, __m512 b) {
    return __builtin_ia32_minps512_mask(a, b, __m512{}, ALL_16, ROUNDING);
}
INTRINSIC __m512d _mm512_min_pd(__m512d a, __m512d b) {
    return __builtin_ia32_minpd512_mask(a, b, __m512d{}, ALL_8, ROUNDING);
}
INTRINSIC __m512 _mm512_max_ps(__m512 a, __m512 b) {
    return __builtin_ia32_maxps512_mask(a, b, __m512{}, ALL_16, ROUNDING);
}
INTRINSIC __m512d _mm512_max_pd(__m512d a, __m512d b) {
    return __builtin_ia32_maxpd512_mask(a, b, __m512d{}, ALL_8, ROUNDING);
}
INTRINSIC __m512 _mm512_scalef_ps(__m512 a, __m512 b) {
    return __builtin_ia32_scalefps512_mask(a, b, __m512{}, ALL_16, ROUNDING);
}
INTRINSIC __m512d _mm512_scalef_pd(__m512d a, __m512d b) {
    return __builtin_ia32_scalefpd512_mask(a, b, __m512d{}, ALL_8, ROUNDING);
}
#endif
