// cvt: between all types.
#include <algorithm>
#include <limits>

#include "elementwise.h"
#include "floats.h"

namespace gpu {
namespace {

// A word or pair of words, as wide as the register that it is read from or written to.
using Word = uint32_t;
using Pair = uint64_t;

// Instruction::count: the rounding, and these.
constexpr uint8_t ROUNDING = 3, WHOLE = 4, FTZ = 8, SAT = 16;
Rounding rounding_of(const Instruction &i) { return Rounding(i.count & ROUNDING); }

// ---- integers to integers -----------------------------------------------------------------------

// A is the narrower of the two types. The register may be wider than the result: `immediate` masks
// what belongs to it.
template <class A, class R, class S, bool FULL>
const Instruction *integer_to_integer(Warp &w, const Instruction &i) {
    const S *a = w.at<S>(i.a);
    const R mask = R(i.immediate);
    write_lanes<FULL>(w.at<R>(i.d), w.active, [&](int l) { return R(R(A(a[l])) & mask); });
    return &i + 1;
}

struct Range { __int128 least, most; };
template <class T>
constexpr Range RANGE = {std::numeric_limits<T>::min(), std::numeric_limits<T>::max()};

Range range_of(Type type) {
    switch (type) {
    case Type::s8:
        return RANGE<int8_t>;
    case Type::u8:
        return RANGE<uint8_t>;
    case Type::s16:
        return RANGE<int16_t>;
    case Type::u16:
        return RANGE<uint16_t>;
    case Type::s32:
        return RANGE<int32_t>;
    case Type::u32:
        return RANGE<uint32_t>;
    case Type::s64:
        return RANGE<int64_t>;
    default:
        return RANGE<uint64_t>;
    }
}

// To the nearest number of the target type, which is `offset_b`.
template <class A, class R, class S>
const Instruction *saturated_integer(Warp &w, const Instruction &i) {
    const S *a = w.at<S>(i.a);
    const R mask = R(i.immediate);
    const Range range = range_of(Type(i.offset_b));
    write_lanes<false>(w.at<R>(i.d), w.active, [&](int l) {
        const __int128 value = A(a[l]);
        return R(R(std::clamp(value, range.least, range.most)) & mask);
    });
    return &i + 1;
}

// ---- floats ------------------------------------------------------------------------------------

template <class T> struct Read {
    using stored_type = T;
    static double value(T x) { return x; }
};
template <class N> struct ReadNarrow {
    using stored_type = uint32_t;
    static double value(uint32_t x) { return wide(N{uint16_t(x)}); }
};
template <> struct Read<Half> : ReadNarrow<Half> {};
template <> struct Read<Bfloat> : ReadNarrow<Bfloat> {};

// To an integer in floating point.
double whole(double x, Rounding r) {
    switch (r) {
    case Rounding::nearest:
        return std::nearbyint(x);
    case Rounding::zero:
        return std::trunc(x);
    case Rounding::down:
        return std::floor(x);
    default:
        return std::ceil(x);
    }
}

// Values out of range become the nearest one in it. NaN: PTX ISA, "cvt", "Semantics".
template <class D> D clamped(double x, bool wide_source) {
    if (x != x) {
        const bool middle = wide_source || sizeof(D) == 8;
        return middle ? D(std::make_unsigned_t<D>(1) << (sizeof(D) * 8 - 1)) : D(0);
    }
    if (x <= double(std::numeric_limits<D>::min())) return std::numeric_limits<D>::min();
    // The largest number of 64 bits is no double: the next one is too large.
    if (x >= double(std::numeric_limits<D>::max())) return std::numeric_limits<D>::max();
    return D(x);
}

template <class D, class A> const Instruction *float_to_integer(Warp &w, const Instruction &i) {
    using S = typename Read<A>::stored_type;
    using R = std::conditional_t<sizeof(D) == 8, Pair, Word>;
    const S *a = w.at<S>(i.a);
    const R mask = R(i.immediate);
    write_lanes<false>(w.at<R>(i.d), w.active, [&](int l) {
        double x = Read<A>::value(a[l]);
        if (i.count & FTZ) x = flush(float(x));
        x = whole(x, rounding_of(i));
        return R(R(clamped<D>(x, std::is_same_v<A, double>)) & mask);
    });
    return &i + 1;
}
// The common case: float, truncated to 32 bits.
template <bool FULL> const Instruction *float_to_int(Warp &w, const Instruction &i) {
    const float *a = w.at<float>(i.a);
    write_lanes<FULL>(w.at<int32_t>(i.d), w.active, [&](int l) {
        const double x = a[l] == a[l] ? double(a[l]) : 0.0;
        return int32_t(x > -2147483648.0 ? (x < 2147483647.0 ? x : 2147483647.0) : -2147483648.0);
    });
    return &i + 1;
}

// A double, whose last bit is odd where the integer has more: it rounds as that would.
double odd_double(uint64_t magnitude) {
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

// A double, exact or odd, in the target type. Floats and doubles round as the host is told to.
template <class D> struct Write;
template <> struct Write<float> {
    using stored_type = float;
    static float value(double x, const Instruction &i) {
        float result = canonical(float(x));
        if (i.count & FTZ) result = flush(result);
        return i.count & SAT ? saturated(result) : result;
    }
};
template <> struct Write<double> {
    using stored_type = double;
    static double value(double x, const Instruction &i) { return i.count & SAT ? saturated(x) : x; }
};
template <class N> struct WriteNarrow {
    using stored_type = uint32_t;
    static uint32_t value(double x, const Instruction &i) {
        const Rounding r = i.count & WHOLE ? Rounding::nearest : rounding_of(i);
        return narrowed<N>(odd_float(x), r, i.count & SAT);
    }
};
template <> struct Write<Half> : WriteNarrow<Half> {};
template <> struct Write<Bfloat> : WriteNarrow<Bfloat> {};

template <class D, class A, class S>
const Instruction *integer_to_float(Warp &w, const Instruction &i) {
    using R = typename Write<D>::stored_type;
    const S *a = w.at<S>(i.a);
    if constexpr (std::is_same_v<R, D>) {
        const RoundingMode mode(host_mode(rounding_of(i)));
        write_lanes<false>(w.at<R>(i.d), w.active, [&](int l) {
            const D x = D(A(a[l]));
            return i.count & SAT ? saturated(x) : x;
        });
    } else {
        write_lanes<false>(w.at<R>(i.d), w.active, [&](int l) {
            const A x = A(a[l]);
            const double magnitude = odd_double(x < 0 ? -uint64_t(x) : uint64_t(x));
            return Write<D>::value(x < 0 ? -magnitude : magnitude, i);
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

template <class D, class A> const Instruction *float_to_float(Warp &w, const Instruction &i) {
    using S = typename Read<A>::stored_type;
    using R = typename Write<D>::stored_type;
    const S *a = w.at<S>(i.a);
    const RoundingMode mode(i.count & WHOLE ? FE_TONEAREST : host_mode(rounding_of(i)));
    write_lanes<false>(w.at<R>(i.d), w.active, [&](int l) {
        double x = Read<A>::value(a[l]);
        if (std::is_same_v<A, float> && (i.count & FTZ)) x = flush(float(x));
        if (i.count & WHOLE) x = whole(x, rounding_of(i));
        return Write<D>::value(x, i);
    });
    return &i + 1;
}
// The common cases, to the nearest and without flags.
template <class N, bool FULL> const Instruction *widen(Warp &w, const Instruction &i) {
    const uint32_t *a = w.at<uint32_t>(i.a);
    write_lanes<FULL>(w.at<float>(i.d), w.active, [&](int l) { return wide(N{uint16_t(a[l])}); });
    return &i + 1;
}
template <class N, bool FULL> const Instruction *narrow_float(Warp &w, const Instruction &i) {
    const float *a = w.at<float>(i.a);
    write_lanes<FULL>(w.at<uint32_t>(i.d), w.active, [&](int l) {
        N to;
        narrow(a[l], to);
        return uint32_t(to.bits);
    });
    return &i + 1;
}

// Two floats to the halves of a word, the first one to the upper.
template <class N, bool RELU> const Instruction *pack(Warp &w, const Instruction &i) {
    const float *a = w.at<float>(i.a), *b = w.at<float>(i.b);
    const auto one = [&](float x) {
        if (RELU && !(x > 0) && x == x) x = 0;
        return narrowed<N>(x, rounding_of(i), false);
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

// ---- selection ---------------------------------------------------------------------------------

bool is_floating(Type t) {
    return t == Type::f16 || t == Type::bf16 || t == Type::f32 || t == Type::f64;
}
bool is_signed(Type t) {
    return t == Type::s8 || t == Type::s16 || t == Type::s32 || t == Type::s64;
}

template <class Pick> Handlers for_whole(Selection &s, Type type, Pick pick) {
    switch (type) {
    case Type::u8:
    case Type::b8:
        return pick(uint8_t());
    case Type::s8:
        return pick(int8_t());
    default:
        return for_integer(s, type, pick);
    }
}
template <class Pick> Handlers for_floating(Type type, Pick pick) {
    switch (type) {
    case Type::f16:
        return pick(Half());
    case Type::bf16:
        return pick(Bfloat());
    case Type::f32:
        return pick(float());
    default:
        return pick(double());
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
    uint8_t how;  // rounding and flags

    bool wide_d() const { return width_of(to_register) == Width::pair; }
    bool wide_a() const { return width_of(from_register) == Width::pair; }
};

Handlers from_whole_to_whole(Selection &s, const Conversion &c) {
    const bool sat = c.how & SAT;
    const Type narrower = sat || bytes_of(c.from) < bytes_of(c.to) ? c.from : c.to;
    // In a wider register an unsigned result is followed by zeros.
    if (bytes_of(c.to) < bytes_of(c.to_register) && !is_signed(c.to))
        s.instruction.immediate &= (int64_t(1) << bytes_of(c.to) * 8) - 1;
    s.instruction.offset_b = int64_t(c.to);
    return for_whole(s, narrower, [&](auto a) {
        return for_widths(c.wide_d(), c.wide_a(), [&](auto r, auto source) {
            using A = decltype(a);
            using R = decltype(r);
            using S = decltype(source);
            if constexpr (sizeof(A) > sizeof(S)) {
                s.refuse("a register is narrower than its type");
                return Handlers();
            } else {
                if (sat) return both(saturated_integer<A, R, S>);
                return Handlers{integer_to_integer<A, R, S, true>,
                                integer_to_integer<A, R, S, false>};
            }
        });
    });
}

Handlers from_float_to_whole(Selection &s, const Conversion &c) {
    const uint8_t truncated = uint8_t(Rounding::zero) | WHOLE;
    if (c.to == Type::s32 && c.from == Type::f32 && (c.how & ~FTZ) == truncated)
        return {float_to_int<true>, float_to_int<false>};
    if (c.wide_d() != (bytes_of(c.to) == 8)) s.refuse("its register is wider than its type");
    return for_whole(s, c.to, [&](auto d) {
        return for_floating(
            c.from, [&](auto a) { return both(float_to_integer<decltype(d), decltype(a)>); });
    });
}

Handlers from_whole_to_float(Selection &s, const Conversion &c) {
    return for_floating(c.to, [&](auto d) {
        return for_whole(s, c.from, [&](auto a) {
            using D = decltype(d);
            using A = decltype(a);
            if constexpr (std::is_floating_point_v<D>) {
                if ((c.how & (ROUNDING | SAT)) == uint8_t(Rounding::nearest)) {
                    if (c.wide_a())
                        return Handlers{integer_to_nearest<D, A, Pair, true>,
                                        integer_to_nearest<D, A, Pair, false>};
                    return Handlers{integer_to_nearest<D, A, Word, true>,
                                    integer_to_nearest<D, A, Word, false>};
                }
            }
            return both(c.wide_a() ? integer_to_float<D, A, Pair> : integer_to_float<D, A, Word>);
        });
    });
}

Handlers from_float_to_float(const Conversion &c) {
    if (c.how == uint8_t(Rounding::nearest)) {
        if (c.from == Type::f32 && c.to == Type::f16)
            return {narrow_float<Half, true>, narrow_float<Half, false>};
        if (c.from == Type::f32 && c.to == Type::bf16)
            return {narrow_float<Bfloat, true>, narrow_float<Bfloat, false>};
        if (c.from == Type::f16 && c.to == Type::f32)
            return {widen<Half, true>, widen<Half, false>};
        if (c.from == Type::bf16 && c.to == Type::f32)
            return {widen<Bfloat, true>, widen<Bfloat, false>};
    }
    return for_floating(c.to, [&](auto d) {
        return for_floating(c.from,
                            [&](auto a) { return both(float_to_float<decltype(d), decltype(a)>); });
    });
}

void to_tf32(Selection &s, Rounding mode, bool away, bool relu) {
    operands(s, Type::b32, 1);
    if (mode == Rounding::zero)
        return s.run(relu ? unary_in<uint32_t, ToTf32<false, true, true>>()
                          : unary_in<uint32_t, ToTf32<false, true, false>>());
    if (away) return s.run(unary_in<uint32_t, ToTf32<true, false, false>>());
    s.run(relu ? unary_in<uint32_t, ToTf32<false, false, true>>()
               : unary_in<uint32_t, ToTf32<false, false, false>>());
}

void to_packed(Selection &s, Type to, Rounding mode, bool relu) {
    s.result(&Instruction::d, 0, Type::b32);
    s.source(&Instruction::a, 1, Type::f32);
    s.source(&Instruction::b, 2, Type::f32);
    s.instruction.count = uint8_t(mode);
    if (to == Type::f16x2) return s.run(both(relu ? pack<Half, true> : pack<Half, false>));
    s.run(both(relu ? pack<Bfloat, true> : pack<Bfloat, false>));
}

void cvt(Selection &s) {
    if (s.has("pack")) s.refuse("this conversion is not supported");
    const int whole_mode = s.take_one({"rni", "rzi", "rmi", "rpi"});
    const int float_mode = s.take_one({"rn", "rz", "rm", "rp"});
    const bool away = s.take("rna"), ftz = s.take("ftz"), sat = s.take("sat");
    const bool relu = s.take("relu");
    const Type to = s.take_type(), from = s.take_type();
    const Rounding mode = Rounding(std::max({whole_mode, float_mode, 0}));
    if (to == Type::tf32) return to_tf32(s, mode, away, relu);
    if ((to == Type::f16x2 || to == Type::bf16x2) && from == Type::f32)
        return to_packed(s, to, mode, relu);
    if (bytes_of(to) > 8 || relu || away || to == Type::f16x2 || to == Type::bf16x2)
        s.refuse("this conversion is not supported");
    const int flags = (whole_mode >= 0 ? WHOLE : 0) | (ftz ? FTZ : 0) | (sat ? SAT : 0);
    Conversion c{to, from, s.declared(s.operand(0)), s.declared(s.operand(1)),
                 uint8_t(uint8_t(mode) | flags)};
    if (is_floating(to) || c.to_register == Type::none) c.to_register = to;
    if (is_floating(from) || c.from_register == Type::none) c.from_register = from;
    s.result(&Instruction::d, 0, c.to_register);
    s.source(&Instruction::a, 1, c.from_register);
    s.instruction.immediate = bytes_of(c.to_register) == 2 ? 0xffff : -1;
    s.instruction.count = c.how;
    if (is_floating(to))
        s.run(is_floating(from) ? from_float_to_float(c) : from_whole_to_float(s, c));
    else
        s.run(is_floating(from) ? from_float_to_whole(s, c) : from_whole_to_whole(s, c));
}

}  // namespace

void add_convert(Selectors &s) { s["cvt"] = cvt; }

}  // namespace gpu
