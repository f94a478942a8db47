// Bitwise logic: and, or, xor, not, cnot, lop3, shifts, selections, moves of predicates.
#include <functional>

#include "elementwise.h"

namespace gpu {
namespace {

struct Not {
    template <class T> T operator()(T a) const { return T(~a); }
};
struct LogicalNot {
    template <class T> T operator()(T a) const { return a == 0; }
};
// Shifts by more than the width give zeros, or the sign.
struct ShiftLeft {
    template <class T> T operator()(T a, uint32_t n) const {
        return n < sizeof(T) * 8 ? T(a << n) : T(0);
    }
};
struct ShiftRight {
    template <class T> T operator()(T a, uint32_t n) const {
        constexpr uint32_t last = sizeof(T) * 8 - 1;
        if (std::is_signed_v<T>) return T(a >> (n < last ? n : last));
        return n <= last ? T(a >> n) : T(0);
    }
};
// Funnel shifts of the pair b:a.
template <bool LEFT, bool WRAP> struct Funnel {
    uint32_t operator()(uint32_t a, uint32_t b, uint32_t n) const {
        n = WRAP ? n & 31 : (n < 32 ? n : 32);
        const uint64_t pair = uint64_t(b) << 32 | a;
        return LEFT ? uint32_t(pair << n >> 32) : uint32_t(pair >> n);
    }
};

template <class Op> const Instruction *predicates(Warp &w, const Instruction &i) {
    w.set_bits(i.d, Op()(w.bits(i.a), w.bits(i.b)));
    return &i + 1;
}
const Instruction *predicate_not(Warp &w, const Instruction &i) {
    w.set_bits(i.d, ~w.bits(i.a));
    return &i + 1;
}

template <class Pick> Handlers by_bytes(uint32_t bytes, Pick pick) {
    if (bytes == 2) return pick(uint16_t());
    if (bytes == 4) return pick(uint32_t());
    return pick(uint64_t());
}

template <class Op> void bitwise(Selection &s) {
    const Type type = s.take_type();
    operands(s, type, 2);
    if (type == Type::pred) return s.run({predicates<Op>, predicates<Op>});
    s.run(by_bytes(bytes_of(type), [](auto t) { return binary_in<decltype(t), Op>(); }));
}

void bitwise_not(Selection &s) {
    const Type type = s.take_type();
    operands(s, type, 1);
    if (type == Type::pred) return s.run({predicate_not, predicate_not});
    s.run(by_bytes(bytes_of(type), [](auto t) { return unary_in<decltype(t), Not>(); }));
}

void cnot(Selection &s) {
    const Type type = s.take_type();
    operands(s, type, 1);
    s.run(by_bytes(bytes_of(type), [](auto t) { return unary_in<decltype(t), LogicalNot>(); }));
}

template <class Op> void shift(Selection &s) {
    const Type type = s.take_type();
    operands(s, type, 1);
    s.source(&Instruction::b, 2, Type::u32);
    s.run(for_integer(s, type, [](auto t) {
        using T = decltype(t);
        return binary_of<T, T, uint32_t, Op>();
    }));
}

void funnel(Selection &s) {
    const bool left = s.take_one({"l", "r"}) == 0, wrap = s.take_one({"clamp", "wrap"}) == 1;
    operands(s, s.take_type(), 3);
    if (left)
        s.run(wrap ? ternary_in<uint32_t, Funnel<true, true>>()
                   : ternary_in<uint32_t, Funnel<true, false>>());
    else
        s.run(wrap ? ternary_in<uint32_t, Funnel<false, true>>()
                   : ternary_in<uint32_t, Funnel<false, false>>());
}

// Any function of three bits, by its truth table.
template <bool FULL> const Instruction *lop3(Warp &w, const Instruction &i) {
    const uint32_t *a = w.at<uint32_t>(i.a), *b = w.at<uint32_t>(i.b), *c = w.at<uint32_t>(i.c);
    uint32_t minterm[8];
    for (int k = 0; k < 8; ++k) minterm[k] = i.immediate >> k & 1 ? ALL : 0;
    write_lanes<FULL>(w.at<uint32_t>(i.d), w.active, [&](int l) {
        const uint32_t x = a[l], y = b[l], z = c[l];
        return (minterm[0] & ~x & ~y & ~z) | (minterm[1] & ~x & ~y & z) |
               (minterm[2] & ~x & y & ~z) | (minterm[3] & ~x & y & z) | (minterm[4] & x & ~y & ~z) |
               (minterm[5] & x & ~y & z) | (minterm[6] & x & y & ~z) | (minterm[7] & x & y & z);
    });
    return &i + 1;
}
void select_lop3(Selection &s) {
    operands(s, s.take_type(), 3);
    s.instruction.immediate = int64_t(s.constant(4));
    s.run({lop3<true>, lop3<false>});
}

template <class T, bool FULL> const Instruction *choose(Warp &w, const Instruction &i) {
    const T *a = w.at<T>(i.a), *b = w.at<T>(i.b);
    const uint32_t bits = w.bits(i.c);
    write_lanes<FULL>(w.at<T>(i.d), w.active, [&](int l) { return bits >> l & 1 ? a[l] : b[l]; });
    return &i + 1;
}
void selp(Selection &s) {
    const Type type = s.take_type();
    operands(s, type, 2);
    s.source(&Instruction::c, 3, Type::pred);
    if (width_of(type) == Width::pair)
        s.run({choose<uint64_t, true>, choose<uint64_t, false>});
    else
        s.run({choose<uint32_t, true>, choose<uint32_t, false>});
}

// a where c >= 0, else b.
template <class C> struct BySign {
    template <class T> T operator()(T a, T b, C c) const { return c >= 0 ? a : b; }
};
template <class T> Handlers slct_of(Type chooser) {
    return chooser == Type::f32 ? ternary_of<T, T, T, float, BySign<float>>()
                                : ternary_of<T, T, T, int32_t, BySign<int32_t>>();
}
void slct(Selection &s) {
    s.take("ftz");
    const Type type = s.take_type(), chooser = s.take_type();
    operands(s, type, 2);
    s.source(&Instruction::c, 3, chooser);
    s.run(width_of(type) == Width::pair ? slct_of<uint64_t>(chooser) : slct_of<uint32_t>(chooser));
}

}  // namespace

void add_logic(Selectors &s) {
    s["and"] = bitwise<std::bit_and<>>;
    s["or"] = bitwise<std::bit_or<>>;
    s["xor"] = bitwise<std::bit_xor<>>;
    s["not"] = bitwise_not;
    s["cnot"] = cnot;
    s["shl"] = shift<ShiftLeft>;
    s["shr"] = shift<ShiftRight>;
    s["shf"] = funnel;
    s["lop3"] = select_lop3;
    s["selp"] = selp;
    s["slct"] = slct;
}

}  // namespace gpu
