// The first lanes of SIMD registers on `cpu`, for rows that do not fill their last register.
//
// Of AVX-512 and AVX2, loads and stores take a mask of lanes: one bit each, or a register whose
// lanes are all ones or zero. Elsewhere lanes are loaded and stored one by one.
#pragma once

#if defined(__AVX512BW__) && defined(__AVX512VL__)
#define MASKED_LANES
#include "dialect/avx512_cpu.cuh"
// The lanes below `count`: none if it is not positive, at most all.
template <typename E> static inline unsigned lanes_below(int count) {
    return count >= 16 ? 0xffff : count > 0 ? (1u << count) - 1 : 0;
}
static inline Simd<float>::type load_masked(const float *p, unsigned mask, float otherwise) {
    return _mm512_mask_loadu_ps(_mm512_set1_ps(otherwise), __mmask16(mask), p);
}
static inline Simd<double>::type load_masked(const double *p, unsigned mask, double otherwise) {
    return _mm512_mask_loadu_pd(_mm512_set1_pd(otherwise), __mmask8(mask), p);
}
static inline void store_masked(float *p, Simd<float>::type value, unsigned mask) {
    _mm512_mask_storeu_ps(p, __mmask16(mask), value);
}
static inline void store_masked(double *p, Simd<double>::type value, unsigned mask) {
    _mm512_mask_storeu_pd(p, __mmask8(mask), value);
}

#elif defined(__AVX2__)
#define MASKED_LANES
template <typename E> static inline typename Simd<E>::index lanes_below(int count) {
    return lane_numbers<E>() < count;
}
static inline Simd<float>::type load_masked(const float *p, Simd<float>::index mask,
                                            float otherwise) {
    typedef float all_t __attribute__((vector_size(32)));
    const all_t value = __builtin_ia32_maskloadps256((const all_t *)p, mask);
    return mask ? value : otherwise - all_t{};
}
static inline Simd<double>::type load_masked(const double *p, Simd<double>::index mask,
                                             double otherwise) {
    typedef double all_t __attribute__((vector_size(32)));
    typedef long long mask_t __attribute__((vector_size(32)));
    const all_t value = __builtin_ia32_maskloadpd256((const all_t *)p, (mask_t)mask);
    return mask ? value : otherwise - all_t{};
}
static inline void store_masked(float *p, Simd<float>::type value, Simd<float>::index mask) {
    __builtin_ia32_maskstoreps256((Simd<float>::type *)p, mask, value);
}
static inline void store_masked(double *p, Simd<double>::type value, Simd<double>::index mask) {
    typedef long long mask_t __attribute__((vector_size(32)));
    __builtin_ia32_maskstorepd256((Simd<double>::type *)p, (mask_t)mask, value);
}
#endif

// Whether a load or store of all lanes takes less time without a mask than with one.
#if defined(__AVX512BW__) && defined(__AVX512VL__)
constexpr bool WHOLE_IS_FASTER = false;
#else
constexpr bool WHOLE_IS_FASTER = true;
#endif

// The first `count` lanes, at most all, none if `count` is not positive. The other lanes are zero,
// or `otherwise`.
template <typename E>
static inline typename Simd<E>::type load_first(const E *p, int count, E otherwise = 0) {
    if (WHOLE_IS_FASTER && count >= Simd<E>::LANES) return load_lanes(p);
#if defined(MASKED_LANES)
    return load_masked(p, lanes_below<E>(count), otherwise);
#else
    typename Simd<E>::type value = otherwise - typename Simd<E>::type{};
    for (int i = 0; i < count; ++i) value[i] = p[i];
    return value;
#endif
}
template <typename E>
static inline void store_first(E *p, typename Simd<E>::type value, int count) {
    if (WHOLE_IS_FASTER && count >= Simd<E>::LANES) return store_lanes(p, value);
#if defined(MASKED_LANES)
    store_masked(p, value, lanes_below<E>(count));
#else
    for (int i = 0; i < count; ++i) p[i] = value[i];
#endif
}
#if defined(MASKED_LANES)
// Writes `length` elements: those of p from `begin` to `end`, and zeros around them.
template <typename E>
static inline void copy_lanes_between(E *out, const E *p, int begin, int end, int length) {
    for (int i = 0; i < length; i += Simd<E>::LANES) {
        const auto inside = lanes_below<E>(end - i) & ~lanes_below<E>(begin - i);
        store_first(out + i, load_masked(p + i, inside, E(0)), length - i);
    }
}
#endif

// Whole numbers of another type, the first `count` of them; the others are undefined. Numbers of 8
// bits are stored modulo 256.
template <typename E, typename Whole>
static inline typename Simd<E>::index load_first_whole(const Whole *p, int count) {
    constexpr int LANES = Simd<E>::LANES;
    typedef Whole whole_t __attribute__((vector_size(LANES * sizeof(Whole))));
    whole_t value = {};
    if (count >= LANES)
        memcpy(&value, p, sizeof value);
    else
        for (int i = 0; i < count; ++i) value[i] = p[i];
    return __builtin_convertvector(value, typename Simd<E>::index);
}
template <typename E, typename Whole>
static inline void store_first_whole(Whole *p, typename Simd<E>::index value, int count) {
    constexpr int LANES = Simd<E>::LANES;
    typedef Whole whole_t __attribute__((vector_size(LANES * sizeof(Whole))));
    const whole_t whole = __builtin_convertvector(value, whole_t);
    if (count >= LANES)
        memcpy(p, &whole, sizeof whole);
    else
        for (int i = 0; i < count; ++i) p[i] = whole[i];
}

// One bit per lane, set where a comparison holds.
template <typename E> static inline unsigned long long lane_bits(typename Simd<E>::index holds) {
    unsigned long long bits = 0;
    for (int i = 0; i < Simd<E>::LANES; ++i) bits |= (unsigned long long)(holds[i] != 0) << i;
    return bits;
}
#if defined(__AVX512BW__) && defined(__AVX512VL__)
template <> inline Simd<float>::index load_first_whole<float>(const unsigned char *p, int count) {
    const __m128i bytes = _mm_maskz_loadu_epi8(__mmask16(lanes_below<float>(count)), p);
    return (Simd<float>::index)_mm512_cvtepu8_epi32(bytes);
}
template <> inline Simd<double>::index load_first_whole<double>(const unsigned char *p, int count) {
    const unsigned mask = lanes_below<double>(count < 8 ? count : 8);
    return (Simd<double>::index)_mm512_cvtepu8_epi64(_mm_maskz_loadu_epi8(__mmask16(mask), p));
}
template <>
inline void store_first_whole<float>(unsigned char *p, Simd<float>::index value, int count) {
    _mm_mask_storeu_epi8(p, __mmask16(lanes_below<float>(count)),
                         _mm512_cvtepi32_epi8((__m512i)value));
}
template <>
inline void store_first_whole<double>(unsigned char *p, Simd<double>::index value, int count) {
    _mm_mask_storeu_epi8(p, __mmask16(lanes_below<double>(count < 8 ? count : 8)),
                         _mm512_cvtepi64_epi8((__m512i)value));
}
template <> inline unsigned long long lane_bits<float>(Simd<float>::index holds) {
    return _mm512_test_epi32_mask((__m512i)holds, (__m512i)holds);
}
template <> inline unsigned long long lane_bits<double>(Simd<double>::index holds) {
    return _mm512_test_epi64_mask((__m512i)holds, (__m512i)holds);
}
#elif defined(__AVX2__)
template <> inline unsigned long long lane_bits<float>(Simd<float>::index holds) {
    return __builtin_ia32_movmskps256((Simd<float>::type)holds);
}
template <> inline unsigned long long lane_bits<double>(Simd<double>::index holds) {
    return __builtin_ia32_movmskpd256((Simd<double>::type)holds);
}
#endif
