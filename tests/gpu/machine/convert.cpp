// cvt: between all types.
#include <limits>

#include "elementwise.h"
#include "floats.h"

namespace gpu {
namespace {

// A word or pair of words, as wide as the register that it is read from or written to.
using Word = uint32_t;
using Pair = uint64_t;

// ---- whole numbers to whole numbers -----------------------------------------------------------------

// The register may be wider than the type: the result is extended. Of a register of 16 bits only
// those of the mask are kept.
template <class D, class A, class R, class S, bool FULL>
const Instruction *integer_to_integer(Warp &w, const Instruction &i) {
    const S *a = w.at<S>(i.a);
    const R mask = R(i.immediate);
    write_lanes<FULL>(w.at<R>(i.d), w.active, [&](int l) { return R(R(D(A(a[l]))) & mask); });
    return &i + 1;
}

template <class A> constexpr __int128 LEAST = std::numeric_limits<A>::min();
template <class A> constexpr __int128 MOST = std::numeric_limits<A>::max();

template <class D, class A, class R, class S, bool>
const Instruction *saturated_integer(Warp &w, const Instruction &i) {
    const S *a = w.at<S>(i.a);
    const R mask = R(i.immediate);
    write_lanes<false>(w.at<R>(i.d), w.active, [&](int l) {
        const __int128 value = A(a[l]);
        return R(R(D(value < LEAST<D> ? LEAST<D> : value > MOST<D> ? MOST<D> : value)) & mask);
    });
    return &i + 1;
}

// ---- floats -----------------------------------------------------------------------------------------

template <class T> struct Read {
    using stored_type = T;
    static double value(T x, bool ftz) {
        if constexpr (sizeof(T) == 4) return ftz ? flush(x) : x;
        else return x;
    }
};
template <> struct Read<Half> {
    using stored_type = uint32_t;
    static double value(uint32_t x, bool) { return wide(Half{uint16_t(x)}); }
};
template <> struct Read<Bfloat> {
    using stored_type = uint32_t;
    static double value(uint32_t x, bool) { return wide(Bfloat{uint16_t(x)}); }
};

// To a whole number in floating point.
inline double whole(double x, Rounding r) {
    switch (r) {
    case Rounding::nearest: return std::nearbyint(x);
    case Rounding::zero: return std::trunc(x);
    case Rounding::down: return std::floor(x);
    default: return std::ceil(x);
    }
}

// Values out of range become the nearest one in it. NaN: PTX ISA, "cvt", "Semantics".
template <class D, bool WIDE_SOURCE> inline D clamped(double x) {
    if (x != x) {
        const bool middle = WIDE_SOURCE || sizeof(D) == 8;
        return middle ? D(std::make_unsigned_t<D>(1) << (sizeof(D) * 8 - 1)) : D(0);
    }
    if (x <= double(std::numeric_limits<D>::min())) return std::numeric_limits<D>::min();
    // The largest number of 64 bits is no double: the next one is too large.
    if (x >= double(std::numeric_limits<D>::max())) return std::numeric_limits<D>::max();
    return D(x);
}

template <class D, class A, class R, Rounding MODE, bool FTZ>
const Instruction *float_to_integer(Warp &w, const Instruction &i) {
    using S = typename Read<A>::stored_type;
    const S *a = w.at<S>(i.a);
    const R mask = R(i.immediate);
    write_lanes<false>(w.at<R>(i.d), w.active, [&](int l) {
        const double x = whole(Read<A>::value(a[l], FTZ), MODE);
        return R(R(clamped<D, std::is_same_v<A, double>>(x)) & mask);
    });
    return &i + 1;
}

// A double, whose last bit is odd where the whole number has more: it rounds as that would.
inline double odd_double(uint64_t magnitude) {
    const bool long_one = magnitude >> 53;
    const uint64_t kept = magnitude & ~uint64_t(2047);
    return double(long_one ? kept | (kept != magnitude ? 2048 : 0) : magnitude);
}

template <class N> uint32_t narrowed(float x, Rounding r, bool saturate) {
    if (saturate) x = saturated(x);
    N to;
    narrow(x, to);
    if (r != Rounding::nearest && x == x) {
        const float back = wide(to);
        const bool above = back > x, below = back < x, negative = std::signbit(x);
        const bool down = r == Rounding::down || (r == Rounding::zero && !negative);
        if (above && down) to.bits = uint16_t(negative ? to.bits + 1 : to.bits - 1);
        if (below && !down) to.bits = uint16_t(negative ? to.bits - 1 : to.bits + 1);
    }
    return to.bits;
}

// Writes a double, exact or odd, in the target type.
template <class D> struct Write;
template <> struct Write<float> {
    using stored_type = float;
    static float value(double x, Rounding, bool ftz, bool sat) {
        float result = canonical(float(x));
        if (ftz) result = flush(result);
        return sat ? saturated(result) : result;
    }
};
template <> struct Write<double> {
    using stored_type = double;
    static double value(double x, Rounding, bool, bool sat) { return sat ? saturated(x) : x; }
};
template <class N> struct WriteNarrow {
    using stored_type = uint32_t;
    static uint32_t value(double x, Rounding r, bool, bool sat) {
        return narrowed<N>(odd_float(x), r, sat);
    }
};
template <> struct Write<Half> : WriteNarrow<Half> {};
template <> struct Write<Bfloat> : WriteNarrow<Bfloat> {};

template <class D, class A, class S, Rounding MODE>
const Instruction *integer_to_float(Warp &w, const Instruction &i) {
    using R = typename Write<D>::stored_type;
    const S *a = w.at<S>(i.a);
    const bool sat = i.count;
    if constexpr (std::is_same_v<R, D>) {  // float and double: as the host does
        const RoundingMode mode(host_mode(MODE));
        write_lanes<false>(w.at<R>(i.d), w.active, [&](int l) {
            const D x = D(A(a[l]));
            return sat ? saturated(x) : x;
        });
    } else {
        write_lanes<false>(w.at<R>(i.d), w.active, [&](int l) {
            const A x = A(a[l]);
            const double magnitude = odd_double(x < 0 ? -uint64_t(x) : uint64_t(x));
            return Write<D>::value(x < 0 ? -magnitude : magnitude, MODE, false, sat);
        });
    }
    return &i + 1;
}
// The common case, as SIMD code.
template <class D, class A, class S, bool FULL>
const Instruction *integer_to_nearest(Warp &w, const Instruction &i) {
    const S *a = w.at<S>(i.a);
    write_lanes<FULL>(w.at<D>(i.d), w.active, [&](int l) { return D(A(a[l])); });
    return &i + 1;
}

template <class D, class A, Rounding MODE, bool WHOLE, bool FTZ>
const Instruction *float_to_float(Warp &w, const Instruction &i) {
    using S = typename Read<A>::stored_type;
    using R = typename Write<D>::stored_type;
    const S *a = w.at<S>(i.a);
    const bool sat = i.count;
    const RoundingMode mode(WHOLE ? FE_TONEAREST : host_mode(MODE));
    write_lanes<false>(w.at<R>(i.d), w.active, [&](int l) {
        double x = Read<A>::value(a[l], FTZ);
        if (WHOLE) x = whole(x, MODE);
        return Write<D>::value(x, WHOLE ? Rounding::nearest : MODE, FTZ, sat);
    });
    return &i + 1;
}

// Two floats to the halves of a word, the first one to the upper.
template <class N, Rounding MODE, bool RELU>
const Instruction *pack(Warp &w, const Instruction &i) {
    const float *a = w.at<float>(i.a), *b = w.at<float>(i.b);
    const auto one = [](float x) {
        if (RELU && !(x > 0) && x == x) x = 0;
        return narrowed<N>(x, MODE, false);
    };
    write_lanes<false>(w.at<uint32_t>(i.d), w.active,
                       [&](int l) { return one(a[l]) << 16 | one(b[l]); });
    return &i + 1;
}

// tf32: a float whose fraction has 10 bits.
template <bool AWAY, bool ZERO, bool RELU> struct ToTf32 {
    uint32_t operator()(uint32_t bits) const {
        if ((bits & 0x7fffffff) > 0x7f800000) return 0x7fffffff;
        if (RELU && bits >> 31) return 0;
        if ((bits & 0x7f800000) == 0x7f800000) return bits;
        const uint32_t half = ZERO ? 0 : AWAY ? 0x1000 : 0xfff + (bits >> 13 & 1);
        return (bits + half) & ~0x1fffu;
    }
};

// ---- selection ----------------------------------------------------------------------------------------

enum class Kind { whole, floating };
Kind kind_of(Type t) {
    switch (t) {
    case Type::f16: case Type::bf16: case Type::f32: case Type::f64: return Kind::floating;
    default: return Kind::whole;
    }
}

template <class Pick> Handlers for_whole(Selection &s, Type type, Pick pick) {
    switch (type) {
    case Type::u8: case Type::b8: return pick(uint8_t());
    case Type::s8: return pick(int8_t());
    default: return for_integer(s, type, pick);
    }
}
template <class Pick> Handlers for_floating(Type type, Pick pick) {
    switch (type) {
    case Type::f16: return pick(Half());
    case Type::bf16: return pick(Bfloat());
    case Type::f32: return pick(float());
    default: return pick(double());
    }
}
template <class Pick> Handlers for_rounding(Rounding r, Pick pick) {
    switch (r) {
    case Rounding::zero: return pick(std::integral_constant<Rounding, Rounding::zero>());
    case Rounding::down: return pick(std::integral_constant<Rounding, Rounding::down>());
    case Rounding::up: return pick(std::integral_constant<Rounding, Rounding::up>());
    default: return pick(std::integral_constant<Rounding, Rounding::nearest>());
    }
}
Handlers both(Handler h) { return {h, h}; }

// Calls pick(R(), S()) with what the two registers hold.
template <class Pick> Handlers for_widths(bool wide_d, bool wide_a, Pick pick) {
    if (wide_d) return wide_a ? pick(Pair(), Pair()) : pick(Pair(), Word());
    return wide_a ? pick(Word(), Pair()) : pick(Word(), Word());
}

struct Conversion {
    Type to, from;
    Type to_register, from_register;
    Rounding rounding;
    bool whole, ftz, sat;

    bool wide_d() const { return width_of(to_register) == Width::pair; }
    bool wide_a() const { return width_of(from_register) == Width::pair; }
};

Handlers from_whole_to_whole(Selection &s, const Conversion &c) {
    return for_whole(s, c.to, [&](auto d) {
        return for_whole(s, c.from, [&](auto a) {
            return for_widths(c.wide_d(), c.wide_a(), [&](auto r, auto source) {
                using D = decltype(d);
                using A = decltype(a);
                using R = decltype(r);
                using S = decltype(source);
                if constexpr (sizeof(D) > sizeof(R) || sizeof(A) > sizeof(S)) {
                    s.refuse("a register is narrower than its type");
                    return Handlers();
                } else {
                    if (c.sat) return both(saturated_integer<D, A, R, S, false>);
                    return Handlers{integer_to_integer<D, A, R, S, true>,
                                    integer_to_integer<D, A, R, S, false>};
                }
            });
        });
    });
}

Handlers from_float_to_whole(Selection &s, const Conversion &c) {
    return for_whole(s, c.to, [&](auto d) {
        return for_floating(c.from, [&](auto a) {
            return for_rounding(c.rounding, [&](auto mode) {
                using D = decltype(d);
                using A = decltype(a);
                constexpr Rounding MODE = mode();
                if (c.wide_d())
                    return both(c.ftz ? float_to_integer<D, A, Pair, MODE, true>
                                      : float_to_integer<D, A, Pair, MODE, false>);
                return both(c.ftz ? float_to_integer<D, A, Word, MODE, true>
                                  : float_to_integer<D, A, Word, MODE, false>);
            });
        });
    });
}

Handlers from_whole_to_float(Selection &s, const Conversion &c) {
    return for_floating(c.to, [&](auto d) {
        return for_whole(s, c.from, [&](auto a) {
            return for_rounding(c.rounding, [&](auto mode) {
                using D = decltype(d);
                using A = decltype(a);
                constexpr Rounding MODE = mode();
                if constexpr (MODE == Rounding::nearest && std::is_floating_point_v<D>) {
                    if (!c.sat && c.wide_a())
                        return Handlers{integer_to_nearest<D, A, Pair, true>,
                                        integer_to_nearest<D, A, Pair, false>};
                    if (!c.sat)
                        return Handlers{integer_to_nearest<D, A, Word, true>,
                                        integer_to_nearest<D, A, Word, false>};
                }
                return both(c.wide_a() ? integer_to_float<D, A, Pair, MODE>
                                       : integer_to_float<D, A, Word, MODE>);
            });
        });
    });
}

Handlers from_float_to_float(const Conversion &c) {
    return for_floating(c.to, [&](auto d) {
        return for_floating(c.from, [&](auto a) {
            return for_rounding(c.rounding, [&](auto mode) {
                using D = decltype(d);
                using A = decltype(a);
                constexpr Rounding MODE = mode();
                if (c.whole)
                    return both(c.ftz ? float_to_float<D, A, MODE, true, true>
                                      : float_to_float<D, A, MODE, true, false>);
                return both(c.ftz ? float_to_float<D, A, MODE, false, true>
                                  : float_to_float<D, A, MODE, false, false>);
            });
        });
    });
}

template <class N> Handlers pack_of(Rounding r, bool relu) {
    if (r == Rounding::zero)
        return both(relu ? pack<N, Rounding::zero, true> : pack<N, Rounding::zero, false>);
    return both(relu ? pack<N, Rounding::nearest, true> : pack<N, Rounding::nearest, false>);
}

void cvt(Selection &s) {
    if (s.has("pack")) s.refuse("this conversion is not supported");
    const int whole = s.take_one({"rni", "rzi", "rmi", "rpi"});
    const int rounding = s.take_one({"rn", "rz", "rm", "rp"});
    const bool away = s.take("rna"), ftz = s.take("ftz"), sat = s.take("sat"), relu = s.take("relu");
    const Type to = s.take_type(), from = s.take_type();
    const Rounding mode = Rounding(std::max({whole, rounding, 0}));
    if (to == Type::tf32) {
        operands(s, Type::b32, 1);
        if (mode == Rounding::zero)
            return s.run(relu ? unary_in<uint32_t, ToTf32<false, true, true>>()
                              : unary_in<uint32_t, ToTf32<false, true, false>>());
        if (away) return s.run(unary_in<uint32_t, ToTf32<true, false, false>>());
        return s.run(relu ? unary_in<uint32_t, ToTf32<false, false, true>>()
                          : unary_in<uint32_t, ToTf32<false, false, false>>());
    }
    if (to == Type::f16x2 || to == Type::bf16x2) {
        if (from != Type::f32) s.refuse("this conversion is not supported");
        s.result(&Instruction::d, 0, Type::b32);
        s.source(&Instruction::a, 1, Type::f32);
        s.source(&Instruction::b, 2, Type::f32);
        return s.run(to == Type::f16x2 ? pack_of<Half>(mode, relu) : pack_of<Bfloat>(mode, relu));
    }
    if (relu) s.refuse("its modifier .relu is not supported here");
    Conversion c{to, from, s.declared(s.operand(0)), s.declared(s.operand(1)), mode, whole >= 0, ftz,
                 sat};
    if (c.to_register == Type::none) c.to_register = to;
    if (c.from_register == Type::none) c.from_register = from;
    if (kind_of(to) == Kind::floating) c.to_register = to;
    if (kind_of(from) == Kind::floating) c.from_register = from;
    s.result(&Instruction::d, 0, c.to_register);
    s.source(&Instruction::a, 1, c.from_register);
    s.instruction.immediate = bytes_of(c.to_register) == 2 ? 0xffff : -1;
    s.instruction.count = sat;
    if (kind_of(to) == Kind::whole)
        s.run(kind_of(from) == Kind::whole ? from_whole_to_whole(s, c) : from_float_to_whole(s, c));
    else
        s.run(kind_of(from) == Kind::whole ? from_whole_to_float(s, c) : from_float_to_float(c));
}

}  // namespace

void add_convert(Selectors &s) { s["cvt"] = cvt; }

}  // namespace gpu
