// Integers: add, sub, mul, mad, div, rem, abs, neg, min, max, sad, dp4a and carries.
#include <algorithm>
#include <limits>

#include "elementwise.h"

namespace gpu {
namespace {

template <class T> using Unsigned = std::make_unsigned_t<T>;
template <class T> struct Twice;
template <> struct Twice<uint16_t> { using type = uint32_t; };
template <> struct Twice<int16_t> { using type = int32_t; };
template <> struct Twice<uint32_t> { using type = uint64_t; };
template <> struct Twice<int32_t> { using type = int64_t; };
template <> struct Twice<uint64_t> { using type = unsigned __int128; };
template <> struct Twice<int64_t> { using type = __int128; };

// Wrapping arithmetic: in C++ only unsigned integers wrap, and 16-bit ones would be promoted to
// int.
template <class T> using Wrapping = std::conditional_t<sizeof(T) == 2, uint32_t, Unsigned<T>>;

struct Add {
    template <class T> T operator()(T a, T b) const { return T(Wrapping<T>(a) + Wrapping<T>(b)); }
};
struct Sub {
    template <class T> T operator()(T a, T b) const { return T(Wrapping<T>(a) - Wrapping<T>(b)); }
};
struct MulLow {
    template <class T> T operator()(T a, T b) const { return T(Wrapping<T>(a) * Wrapping<T>(b)); }
};
struct MulHigh {
    template <class T> T operator()(T a, T b) const {
        using W = typename Twice<T>::type;
        return T(W(a) * W(b) >> sizeof(T) * 8);
    }
};
struct MulWide {
    template <class T> auto operator()(T a, T b) const {
        using W = typename Twice<T>::type;
        return W(W(a) * W(b));
    }
};
struct MadLow {
    template <class T> T operator()(T a, T b, T c) const { return Add()(MulLow()(a, b), c); }
};
struct MadHigh {
    template <class T> T operator()(T a, T b, T c) const { return Add()(MulHigh()(a, b), c); }
};
struct MadHighSaturated {
    int32_t operator()(int32_t a, int32_t b, int32_t c) const {
        const int64_t sum = int64_t(MulHigh()(a, b)) + c;
        return int32_t(std::clamp<int64_t>(sum, INT32_MIN, INT32_MAX));
    }
};
struct MadWide {
    template <class T, class W> W operator()(T a, T b, W c) const {
        return Add()(W(MulWide()(a, b)), c);
    }
};
// 24-bit factors: the low 32 bits of the 48-bit product, or the high ones.
template <class T> T factor24(T a) { return T(Unsigned<T>(a) << 8) >> 8; }
struct Mul24Low {
    template <class T> T operator()(T a, T b) const {
        return T(uint64_t(int64_t(factor24(a)) * int64_t(factor24(b))));
    }
};
struct Mul24High {
    template <class T> T operator()(T a, T b) const {
        return T(int64_t(factor24(a)) * int64_t(factor24(b)) >> 16);
    }
};
struct AddSaturated {
    int32_t operator()(int32_t a, int32_t b) const {
        return int32_t(std::clamp<int64_t>(int64_t(a) + b, INT32_MIN, INT32_MAX));
    }
};
struct SubSaturated {
    int32_t operator()(int32_t a, int32_t b) const {
        return int32_t(std::clamp<int64_t>(int64_t(a) - b, INT32_MIN, INT32_MAX));
    }
};
// Division by zero gives all ones, as on GPUs.
struct Div {
    template <class T> T operator()(T a, T b) const {
        if (b == 0) return T(-1);
        if (std::is_signed_v<T> && b == T(-1)) return Sub()(T(0), a);
        return T(a / b);
    }
};
struct Rem {
    template <class T> T operator()(T a, T b) const {
        if (b == 0) return a;
        if (std::is_signed_v<T> && b == T(-1)) return 0;
        return T(a % b);
    }
};
struct Abs {
    template <class T> T operator()(T a) const { return a < 0 ? Sub()(T(0), a) : a; }
};
struct Neg {
    template <class T> T operator()(T a) const { return Sub()(T(0), a); }
};
struct Min {
    template <class T> T operator()(T a, T b) const { return b < a ? b : a; }
};
struct Max {
    template <class T> T operator()(T a, T b) const { return a < b ? b : a; }
};
struct MinRelu {
    int32_t operator()(int32_t a, int32_t b) const { return std::max(std::min(a, b), 0); }
};
struct MaxRelu {
    int32_t operator()(int32_t a, int32_t b) const { return std::max(std::max(a, b), 0); }
};
struct Sad {
    template <class T> T operator()(T a, T b, T c) const {
        return Add()(c, a < b ? Sub()(b, a) : Sub()(a, b));
    }
};
// The same for both halves of a word.
template <class T, class Op> struct Halves {
    uint32_t operator()(uint32_t a, uint32_t b) const {
        const uint32_t low = uint16_t(Op()(T(a), T(b)));
        return low | uint32_t(uint16_t(Op()(T(a >> 16), T(b >> 16)))) << 16;
    }
};

// A product of bytes, summed: dp4a; of halves and bytes: dp2a.
template <class A, class B, int FIRST, int COUNT> struct DotProduct {
    uint32_t operator()(uint32_t a, uint32_t b, uint32_t c) const {
        for (int i = 0; i < COUNT; ++i) {
            const int32_t left = COUNT == 4 ? int32_t(byte<A>(a, i)) : half<A>(a, i);
            c += uint32_t(left) * uint32_t(int32_t(byte<B>(b, FIRST + i)));
        }
        return c;
    }
    template <class T> static int32_t byte(uint32_t word, int i) {
        const uint8_t bits = uint8_t(word >> 8 * i);
        return std::is_signed_v<T> ? int32_t(int8_t(bits)) : int32_t(bits);
    }
    template <class T> static int32_t half(uint32_t word, int i) {
        const uint16_t bits = uint16_t(word >> 16 * i);
        return std::is_signed_v<T> ? int32_t(int16_t(bits)) : int32_t(bits);
    }
};

template <class Op> void select_binary(Selection &s, Type type) {
    operands(s, type, 2);
    s.run(for_integer(s, type, [](auto t) { return binary_in<decltype(t), Op>(); }));
}
template <class Op> void select_unary(Selection &s, Type type) {
    operands(s, type, 1);
    s.run(for_integer(s, type, [](auto t) { return unary_in<decltype(t), Op>(); }));
}
template <class Op> void select_ternary(Selection &s, Type type) {
    operands(s, type, 3);
    s.run(for_integer(s, type, [](auto t) { return ternary_in<decltype(t), Op>(); }));
}

// ---- carries: the condition code is a hidden predicate, an operand like any other --------------

template <class T, bool SUBTRACT, bool TAKE, bool LEAVE, bool FULL>
const Instruction *with_carry(Warp &w, const Instruction &i) {
    using U = Unsigned<T>;
    const U *a = w.at<U>(i.a), *b = w.at<U>(i.b);
    U *d = w.at<U>(i.d);
    const uint32_t in = TAKE ? w.bits(i.c) : 0;
    uint32_t out = 0;
    for (int l = 0; l < LANES; ++l) {
        if (!FULL && !(w.active >> l & 1)) continue;
        const U carry = in >> l & 1;
        U partial, sum;
        const bool first = SUBTRACT ? __builtin_sub_overflow(a[l], b[l], &partial)
                                    : __builtin_add_overflow(a[l], b[l], &partial);
        const bool second = SUBTRACT ? __builtin_sub_overflow(partial, carry, &sum)
                                     : __builtin_add_overflow(partial, carry, &sum);
        d[l] = sum;
        out |= uint32_t(first || second) << l;
    }
    if (LEAVE) w.set_bits(*i.more, out);
    return &i + 1;
}

template <class T, bool SUBTRACT> Handlers carry_handlers(bool take, bool leave) {
    if (take && leave)
        return {with_carry<T, SUBTRACT, true, true, true>,
                with_carry<T, SUBTRACT, true, true, false>};
    if (take)
        return {with_carry<T, SUBTRACT, true, false, true>,
                with_carry<T, SUBTRACT, true, false, false>};
    return {with_carry<T, SUBTRACT, false, true, true>,
            with_carry<T, SUBTRACT, false, true, false>};
}

template <bool SUBTRACT> void select_carry(Selection &s, bool take, bool leave) {
    const Type type = s.take_type();
    operands(s, type, 2);
    if (take) s.source(&Instruction::c, s.carry(), Type::pred);
    if (leave) s.more_result(s.carry(), Width::bit);
    if (bytes_of(type) == 4)
        s.run(carry_handlers<uint32_t, SUBTRACT>(take, leave));
    else
        s.run(carry_handlers<uint64_t, SUBTRACT>(take, leave));
}

// mad with a carry: hi or lo product, then as above.
template <class T, bool HIGH, bool TAKE, bool LEAVE, bool FULL>
const Instruction *mad_with_carry(Warp &w, const Instruction &i) {
    using U = Unsigned<T>;
    const T *a = w.at<T>(i.a), *b = w.at<T>(i.b);
    const U *c = w.at<U>(i.c);
    U *d = w.at<U>(i.d);
    const uint32_t in = TAKE ? w.bits(i.more[0]) : 0;
    uint32_t out = 0;
    for (int l = 0; l < LANES; ++l) {
        if (!FULL && !(w.active >> l & 1)) continue;
        const U product = HIGH ? U(MulHigh()(a[l], b[l])) : U(MulLow()(a[l], b[l]));
        U partial, sum;
        const bool first = __builtin_add_overflow(product, c[l], &partial);
        const bool second = __builtin_add_overflow(partial, U(in >> l & 1), &sum);
        d[l] = sum;
        out |= uint32_t(first || second) << l;
    }
    if (LEAVE) w.set_bits(i.more[1], out);
    return &i + 1;
}

template <class T, bool HIGH> Handlers mad_carry_handlers(bool take, bool leave) {
    if (take && leave)
        return {mad_with_carry<T, HIGH, true, true, true>,
                mad_with_carry<T, HIGH, true, true, false>};
    if (take)
        return {mad_with_carry<T, HIGH, true, false, true>,
                mad_with_carry<T, HIGH, true, false, false>};
    return {mad_with_carry<T, HIGH, false, true, true>,
            mad_with_carry<T, HIGH, false, true, false>};
}

void select_mad_carry(Selection &s, bool take, bool leave) {
    const bool high = s.take_one({"lo", "hi"}) == 1;
    const Type type = s.take_type();
    operands(s, type, 3);
    s.more_source(s.carry(), Type::pred);
    if (leave) s.more_result(s.carry(), Width::bit);
    s.run(for_integer(s, type, [&](auto t) {
        using T = decltype(t);
        if constexpr (sizeof(T) == 2) {
            s.refuse("it does not take 16-bit types");
            return Handlers();
        } else {
            return high ? mad_carry_handlers<T, true>(take, leave)
                        : mad_carry_handlers<T, false>(take, leave);
        }
    }));
}

// ---- selection ---------------------------------------------------------------------------------

template <class Op, class Saturated> void add_or_sub(Selection &s) {
    if (select_floating(s)) return;
    if (s.take("cc")) return select_carry<std::is_same_v<Op, Sub>>(s, false, true);
    const bool saturated = s.take("sat");
    const Type type = s.take_type();
    if (saturated) {
        operands(s, type, 2);
        s.run(binary_in<int32_t, Saturated>());
    } else if (type == Type::u16x2 || type == Type::s16x2) {
        operands(s, type, 2);
        s.run(binary_in<uint32_t, Halves<int16_t, Op>>());
    } else {
        select_binary<Op>(s, type);
    }
}

template <bool SUBTRACT> void addc_or_subc(Selection &s) {
    const bool leave = s.take("cc");
    select_carry<SUBTRACT>(s, true, leave);
}

void mul(Selection &s) {
    if (select_floating(s)) return;
    const int part = s.take_one({"lo", "hi", "wide"});
    const Type type = s.take_type();
    if (part == 2) {
        const Type wide = bytes_of(type) == 2 ? Type::b32 : Type::b64;
        s.result(&Instruction::d, 0, wide);
        s.source(&Instruction::a, 1, type);
        s.source(&Instruction::b, 2, type);
        s.run(for_integer(s, type, [&](auto t) {
            using T = decltype(t);
            if constexpr (sizeof(T) == 8) {
                s.refuse("it does not take 64-bit types");
                return Handlers();
            } else {
                return binary_of<typename Twice<T>::type, T, T, MulWide>();
            }
        }));
    } else if (part == 1) {
        select_binary<MulHigh>(s, type);
    } else {
        select_binary<MulLow>(s, type);
    }
}

void mad(Selection &s) {
    if (select_floating(s)) return;
    if (s.take("cc")) return select_mad_carry(s, false, true);
    const int part = s.take_one({"lo", "hi", "wide"});
    const bool saturated = s.take("sat");
    const Type type = s.take_type();
    if (part == 2) {
        const Type wide = bytes_of(type) == 2 ? Type::b32 : Type::b64;
        s.result(&Instruction::d, 0, wide);
        s.source(&Instruction::a, 1, type);
        s.source(&Instruction::b, 2, type);
        s.source(&Instruction::c, 3, wide);
        s.run(for_integer(s, type, [&](auto t) {
            using T = decltype(t);
            if constexpr (sizeof(T) == 8) {
                s.refuse("it does not take 64-bit types");
                return Handlers();
            } else {
                using W = typename Twice<T>::type;
                return ternary_of<W, T, T, W, MadWide>();
            }
        }));
    } else if (saturated) {
        operands(s, type, 3);
        s.run(ternary_in<int32_t, MadHighSaturated>());
    } else if (part == 1) {
        select_ternary<MadHigh>(s, type);
    } else {
        select_ternary<MadLow>(s, type);
    }
}

void madc(Selection &s) {
    const bool leave = s.take("cc");
    select_mad_carry(s, true, leave);
}

void mul24(Selection &s) {
    const bool high = s.take_one({"lo", "hi"}) == 1;
    const Type type = s.take_type();
    operands(s, type, 2);
    if (type == Type::u32)
        s.run(high ? binary_in<uint32_t, Mul24High>() : binary_in<uint32_t, Mul24Low>());
    else
        s.run(high ? binary_in<int32_t, Mul24High>() : binary_in<int32_t, Mul24Low>());
}

template <class Op, class Relu> void min_or_max(Selection &s) {
    if (select_floating(s)) return;
    const bool relu = s.take("relu");
    const Type type = s.take_type();
    if (relu) {
        operands(s, type, 2);
        s.run(binary_in<int32_t, Relu>());
    } else if (type == Type::u16x2 || type == Type::s16x2) {
        operands(s, type, 2);
        s.run(type == Type::s16x2 ? binary_in<uint32_t, Halves<int16_t, Op>>()
                                  : binary_in<uint32_t, Halves<uint16_t, Op>>());
    } else {
        select_binary<Op>(s, type);
    }
}

template <class Op> void integer_binary(Selection &s) {
    if (!select_floating(s)) select_binary<Op>(s, s.take_type());
}
template <class Op> void integer_unary(Selection &s) {
    if (!select_floating(s)) select_unary<Op>(s, s.take_type());
}
void sad(Selection &s) { select_ternary<Sad>(s, s.take_type()); }

template <int COUNT, int FIRST> Handlers dot_product(Type a, Type b) {
    const bool sa = a == Type::s32, sb = b == Type::s32;
    using S = int32_t;
    using U = uint32_t;
    if (sa && sb) return ternary_in<U, DotProduct<S, S, FIRST, COUNT>>();
    if (sa) return ternary_in<U, DotProduct<S, U, FIRST, COUNT>>();
    if (sb) return ternary_in<U, DotProduct<U, S, FIRST, COUNT>>();
    return ternary_in<U, DotProduct<U, U, FIRST, COUNT>>();
}

void dp4a(Selection &s) {
    const Type a = s.take_type(), b = s.take_type();
    operands(s, Type::b32, 3);
    s.run(dot_product<4, 0>(a, b));
}
void dp2a(Selection &s) {
    const bool high = s.take_one({"lo", "hi"}) == 1;
    const Type a = s.take_type(), b = s.take_type();
    operands(s, Type::b32, 3);
    s.run(high ? dot_product<2, 2>(a, b) : dot_product<2, 0>(a, b));
}

}  // namespace

void add_integer(Selectors &s) {
    s["add"] = add_or_sub<Add, AddSaturated>;
    s["sub"] = add_or_sub<Sub, SubSaturated>;
    s["addc"] = addc_or_subc<false>;
    s["subc"] = addc_or_subc<true>;
    s["mul"] = mul;
    s["mad"] = mad;
    s["madc"] = madc;
    s["mul24"] = mul24;
    s["div"] = integer_binary<Div>;
    s["rem"] = integer_binary<Rem>;
    s["abs"] = integer_unary<Abs>;
    s["neg"] = integer_unary<Neg>;
    s["min"] = min_or_max<Min, MinRelu>;
    s["max"] = min_or_max<Max, MaxRelu>;
    s["sad"] = sad;
    s["dp4a"] = dp4a;
    s["dp2a"] = dp2a;
}

}  // namespace gpu
