// Values of a warp's 32 lanes side by side, which the compiler turns into SIMD code.
//
// A register is an array of 32 words, or of 32 pairs of words, one per lane; a predicate is one
// word, one bit per lane. 16-bit values lie in words, the upper half zero.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

namespace gpu {

constexpr int LANES = 32;
constexpr uint32_t ALL = 0xffffffffu, ENDS = 0x80000001u;

// How the addresses of a warp's lanes lie: anywhere; or, of all 32 lanes, side by side, or all the
// same.
enum class Shape : uint8_t { scattered, row, same };

template <class T> using Stored = std::conditional_t<sizeof(T) < 4, uint32_t, T>;

template <class T> inline T value_of(Stored<T> stored) { return T(stored); }
template <class T> inline Stored<T> stored(T value) {
    if constexpr (sizeof(T) == 2) return uint16_t(value);
    if constexpr (sizeof(T) == 1) return uint8_t(value);
    if constexpr (sizeof(T) >= 4) return value;
}

template <class To, class From> inline To bits_as(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}

// Sets d[lane] = value(lane) for the lanes of the mask. `d` may be what `value` reads, lane by
// lane.
template <bool FULL, class D, class F>
inline __attribute__((always_inline)) void write_lanes(D *d, uint32_t mask, F value) {
#pragma GCC ivdep
    for (int lane = 0; lane < LANES; ++lane) {
        const D result = value(lane);
        d[lane] = FULL || (mask >> lane & 1) ? result : d[lane];
    }
}

// One bit per lane: whether holds(lane).
template <class F> inline __attribute__((always_inline)) uint32_t bits_where(F holds) {
    uint32_t bits = 0;
    for (int lane = 0; lane < LANES; ++lane) bits |= uint32_t(bool(holds(lane))) << lane;
    return bits;
}

// The lanes of a mask, lowest first: for (uint32_t rest = mask; rest; rest &= rest - 1).
inline int lowest(uint32_t mask) { return __builtin_ctz(mask); }

}  // namespace gpu
