// exp of a SIMD register on `cpu`; the C library's exp would take one lane at a time.
//
//   exp(x) = 2^n exp(r),  n = x / log 2 to the nearest,  r = x - n log 2, |r| <= log(2) / 2
//
// exp(r) by its Taylor series, up to the last term that changes the result. The error is below one
// ulp; gradual underflow, infinities and NaN are right.
#pragma once

template <typename E> struct ExpConstants;
template <> struct ExpConstants<float> {
    static constexpr int TERMS = 7, FRACTION_BITS = 23, BIAS = 127;
    static constexpr float ROUND = 12582912.0f;  // 1.5 * 2^23: adding it rounds to whole numbers
    static constexpr float LEAST = -104.0f, MOST = 89.0f;  // exp is 0 below, infinity above
    static constexpr float LOG2_HIGH = 0.693359375f, LOG2_LOW = -2.12194440e-4f;
};
template <> struct ExpConstants<double> {
    static constexpr int TERMS = 13, FRACTION_BITS = 52, BIAS = 1023;
    static constexpr double ROUND = 6755399441055744.0;
    static constexpr double LEAST = -746.0, MOST = 710.0;
    static constexpr double LOG2_HIGH = 6.93147180369123816490e-01;  // n * LOG2_HIGH is exact
    static constexpr double LOG2_LOW = 1.90821492927058770002e-10;
};

// clamped: x limited to LEAST and MOST; NaN stays, since it is the second operand.
// scaled: value * 2^n, where `shifted` is n + ROUND.
#if defined(__AVX512BW__) && defined(__AVX512VL__)
template <typename E> static inline __m512 clamped(__m512 x) {
    using K = ExpConstants<float>;
    return _mm512_min_ps(_mm512_set1_ps(K::MOST), _mm512_max_ps(_mm512_set1_ps(K::LEAST), x));
}
template <typename E> static inline __m512d clamped(__m512d x) {
    using K = ExpConstants<double>;
    return _mm512_min_pd(_mm512_set1_pd(K::MOST), _mm512_max_pd(_mm512_set1_pd(K::LEAST), x));
}
template <typename E> static inline __m512 scaled(__m512 value, __m512 shifted) {
    return _mm512_scalef_ps(value, shifted - ExpConstants<float>::ROUND);
}
template <typename E> static inline __m512d scaled(__m512d value, __m512d shifted) {
    return _mm512_scalef_pd(value, shifted - ExpConstants<double>::ROUND);
}
#else
template <typename E, typename V> static inline V clamped(V x) {
    using K = ExpConstants<E>;
    return x < K::LEAST ? K::LEAST - V{} : x > K::MOST ? K::MOST - V{} : x;
}
template <typename E, typename V> static inline V scaled(V value, V shifted) {
    using K = ExpConstants<E>;
    using N = decltype(value < value);
    // In two halves, since 2^n may be out of the range of normal numbers.
    const N n = (N)shifted - (N)(K::ROUND - V{}), half = n >> 1;
    const V low = (V)((half + K::BIAS) << K::FRACTION_BITS);
    const V high = (V)((n - half + K::BIAS) << K::FRACTION_BITS);
    return value * low * high;
}
#endif

template <typename E, typename V> static inline V exp_register(V x) {
    using K = ExpConstants<E>;
    x = clamped<E>(x);
    const V shifted = x * E(1.4426950408889634) + K::ROUND, n = shifted - K::ROUND;
    const V r = (x - n * K::LOG2_HIGH) - n * K::LOG2_LOW;
    E factor[K::TERMS + 1] = {1};
    UNROLL(int k = 1; k <= K::TERMS; ++k) factor[k] = factor[k - 1] / E(k);
    V sum = factor[K::TERMS] - V{};
    UNROLL(int k = K::TERMS - 1; k >= 0; --k) sum = sum * r + factor[k];
    return scaled<E>(sum, shifted);
}
static inline Simd<float>::type exp_lanes(Simd<float>::type x) { return exp_register<float>(x); }
static inline Simd<double>::type exp_lanes(Simd<double>::type x) { return exp_register<double>(x); }
