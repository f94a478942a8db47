// Floating-point numbers as GPUs treat them: flushing, NaN, saturation, narrow types, rounding.
#pragma once

#include <cfenv>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "lanes.h"

namespace gpu {

// Narrow numbers are held as their bits.
struct Half { uint16_t bits; };
struct Bfloat { uint16_t bits; };

// Subnormal numbers become zeros of their sign.
inline float flush(float x) {
    const uint32_t bits = bits_as<uint32_t>(x);
    return bits_as<float>(bits & 0x7f800000u ? bits : bits & 0x80000000u);
}
template <bool FTZ> inline float flushed(float x) { return FTZ ? flush(x) : x; }
template <bool> inline double flushed(double x) { return x; }

// The only NaN that float operations give.
inline float canonical(float x) { return x == x ? x : bits_as<float>(0x7fffffffu); }
inline double canonical(double x) { return x; }

// To 0 .. 1; NaN becomes 0.
template <class T> inline T saturated(T x) { return x > T(0) ? (x < T(1) ? x : T(1)) : T(0); }

inline float wide(Half x) { return float(bits_as<_Float16>(x.bits)); }
inline float wide(Bfloat x) { return bits_as<float>(uint32_t(x.bits) << 16); }

// To the nearest, ties to even.
inline void narrow(float x, Half &to) {
    to.bits = x == x ? bits_as<uint16_t>(_Float16(x)) : uint16_t(0x7fff);
}
inline void narrow(float x, Bfloat &to) {
    const uint32_t bits = bits_as<uint32_t>(x);
    to.bits = x == x ? uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16) : uint16_t(0x7fff);
}

// A double as a float that rounds to a narrower type as the double would: where it is inexact, the
// last bit is odd ("round to odd").
inline float odd_float(double x) {
    const float nearest = float(x);
    if (double(nearest) == x || x != x) return nearest;
    uint32_t bits = bits_as<uint32_t>(nearest);
    if (std::fabs(double(nearest)) > std::fabs(x)) --bits;  // toward zero
    return bits_as<float>(bits | 1);
}

// a * b + c of narrow numbers, rounded once. The product is exact in double, and the sum's last bit
// is made odd where it is not.
inline float narrow_fma(float a, float b, float c) {
    const double product = double(a) * b, addend = c, sum = product + addend;
    const double back = sum - addend, error = (product - back) + (addend - (sum - back));
    if (error == 0 || sum != sum || std::isinf(sum)) return odd_float(sum);
    uint64_t bits = bits_as<uint64_t>(sum);
    if (!(bits & 1)) bits += (error > 0) == (sum > 0) ? 1 : -1;
    return odd_float(bits_as<double>(bits));
}

// The host rounds another way for the life of this. What is computed meanwhile must be loaded from
// and stored to memory, or the compiler would move it.
class RoundingMode {
  public:
    explicit RoundingMode(int mode) {
        fesetround(mode);
        asm volatile("" ::: "memory");
    }
    ~RoundingMode() {
        asm volatile("" ::: "memory");
        fesetround(FE_TONEAREST);
    }
};

enum class Rounding : uint8_t { nearest, zero, down, up };
inline int host_mode(Rounding r) {
    return r == Rounding::zero   ? FE_TOWARDZERO
           : r == Rounding::down ? FE_DOWNWARD
           : r == Rounding::up   ? FE_UPWARD
                                 : FE_TONEAREST;
}

}  // namespace gpu
