// Comparisons: setp, set, testp.
#include "elementwise.h"
#include "floats.h"

namespace gpu {
namespace {

enum Comparison { EQ, NE, LT, LE, GT, GE, EQU, NEU, LTU, LEU, GTU, GEU, NUM, NAN_ };

// The `u` comparisons also hold if a number is NaN.
template <int C> struct Compare {
    template <class T> bool operator()(T a, T b) const {
        switch (C) {
        case EQ:
            return a == b;
        case NE:
            return std::is_floating_point_v<T> ? a < b || a > b : a != b;
        case LT:
            return a < b;
        case LE:
            return a <= b;
        case GT:
            return a > b;
        case GE:
            return a >= b;
        case EQU:
            return !(a < b || a > b);
        case NEU:
            return a != b;
        case LTU:
            return !(a >= b);
        case LEU:
            return !(a > b);
        case GTU:
            return !(a <= b);
        case GEU:
            return !(a < b);
        case NUM:
            return a == a && b == b;
        default:
            return a != a || b != b;
        }
    }
};

// How an operand is read before it is compared.
template <class T> struct Plain {
    using stored_type = Stored<T>;
    T operator()(Stored<T> x) const { return value_of<T>(x); }
};
struct Flushed {
    using stored_type = float;
    float operator()(float x) const { return flush(x); }
};
template <class N, int SHIFT> struct Widened {
    using stored_type = uint32_t;
    float operator()(uint32_t x) const { return wide(N{uint16_t(x >> SHIFT)}); }
};

template <class Read, int C> uint32_t compared(const Warp &w, const Instruction &i) {
    using S = typename Read::stored_type;
    const S *a = w.at<S>(i.a), *b = w.at<S>(i.b);
    return bits_where([&](int l) { return Compare<C>()(Read()(a[l]), Read()(b[l])); });
}
using Compared = uint32_t (*)(const Warp &, const Instruction &);

// A comparison's result combined with another predicate: more[1] is that one, `count` the
// operation.
enum Combined : uint8_t { alone, with_and, with_or, with_xor };
uint32_t combined(uint32_t bits, uint32_t other, uint8_t how) {
    return how == with_and ? bits & other : how == with_or ? bits | other : bits ^ other;
}

template <class Read, int C> const Instruction *setp(Warp &w, const Instruction &i) {
    const uint32_t bits = compared<Read, C>(w, i);
    if (i.count == alone && i.c == NO_OPERAND) {
        w.set_bits(i.d, bits);
        return &i + 1;
    }
    const uint32_t other = i.count == alone ? 0 : w.bits(i.more[0]);
    const uint32_t first = i.count == alone ? bits : combined(bits, other, i.count);
    const uint32_t second = i.count == alone ? ~bits : combined(~bits, other, i.count);
    if (i.d != NO_OPERAND) w.set_bits(i.d, first);
    if (i.c != NO_OPERAND) w.set_bits(i.c, second);
    return &i + 1;
}

// One word per lane: all ones or zero, or 1.0f or 0.
template <class Read, int C> const Instruction *set(Warp &w, const Instruction &i) {
    uint32_t bits = compared<Read, C>(w, i);
    if (i.count != alone) bits = combined(bits, w.bits(i.more[0]), i.count);
    const uint32_t yes = uint32_t(i.immediate);
    write_lanes<false>(w.at<uint32_t>(i.d), w.active,
                       [&](int l) { return bits >> l & 1 ? yes : 0; });
    return &i + 1;
}
// For both halves of a word.
template <class N, int C> const Instruction *set_packed(Warp &w, const Instruction &i) {
    const uint32_t low = compared<Widened<N, 0>, C>(w, i), high = compared<Widened<N, 16>, C>(w, i);
    const uint32_t yes = uint32_t(i.immediate) & 0xffff;
    write_lanes<false>(w.at<uint32_t>(i.d), w.active, [&](int l) {
        return (low >> l & 1 ? yes : 0) | (high >> l & 1 ? yes << 16 : 0);
    });
    return &i + 1;
}
template <class N, int C> const Instruction *setp_packed(Warp &w, const Instruction &i) {
    if (i.d != NO_OPERAND) w.set_bits(i.d, compared<Widened<N, 0>, C>(w, i));
    if (i.c != NO_OPERAND) w.set_bits(i.c, compared<Widened<N, 16>, C>(w, i));
    return &i + 1;
}

// Calls pick with the comparison as a constant; integers have the first six alone.
template <bool FLOATING, int C = EQ, class Pick>
Handlers for_comparison(int comparison, Pick pick) {
    constexpr int LAST = FLOATING ? NAN_ : GE;
    if constexpr (C == LAST) {
        return pick(std::integral_constant<int, C>());
    } else {
        if (comparison == C) return pick(std::integral_constant<int, C>());
        return for_comparison<FLOATING, C + 1>(comparison, pick);
    }
}

template <bool SET, class Read, bool FLOATING = true> Handlers compare_as(int comparison) {
    return for_comparison<FLOATING>(comparison, [](auto c) {
        if constexpr (SET)
            return Handlers{set<Read, c()>, set<Read, c()>};
        else
            return Handlers{setp<Read, c()>, setp<Read, c()>};
    });
}
template <bool SET, class N> Handlers compare_packed(int comparison) {
    return for_comparison<true>(comparison, [](auto c) {
        if constexpr (SET)
            return Handlers{set_packed<N, c()>, set_packed<N, c()>};
        else
            return Handlers{setp_packed<N, c()>, setp_packed<N, c()>};
    });
}

template <bool SET> Handlers handlers(Selection &s, Type type, bool ftz, int comparison) {
    switch (type) {
    case Type::f32:
        return ftz ? compare_as<SET, Flushed>(comparison)
                   : compare_as<SET, Plain<float>>(comparison);
    case Type::f64:
        return compare_as<SET, Plain<double>>(comparison);
    case Type::f16:
        return compare_as<SET, Widened<Half, 0>>(comparison);
    case Type::bf16:
        return compare_as<SET, Widened<Bfloat, 0>>(comparison);
    case Type::f16x2:
        return compare_packed<SET, Half>(comparison);
    case Type::bf16x2:
        return compare_packed<SET, Bfloat>(comparison);
    default:
        break;
    }
    return for_integer(
        s, type, [&](auto t) { return compare_as<SET, Plain<decltype(t)>, false>(comparison); });
}

bool unsigned_type(Type type) {
    return type == Type::u16 || type == Type::u32 || type == Type::u64;
}

int take_comparison(Selection &s, Type type) {
    // lo, ls, hi and hs are the unsigned lt, le, gt and ge.
    const int unsigned_one = unsigned_type(type) ? s.take_one({"lo", "ls", "hi", "hs"}) : -1;
    if (unsigned_one >= 0) return LT + unsigned_one;
    const int found = s.take_one({"eq", "ne", "lt", "le", "gt", "ge", "equ", "neu", "ltu", "leu",
                                  "gtu", "geu", "num", "nan"});
    if (found < 0) s.refuse("it has no comparison");
    return found;
}

Type type_compared(const Selection &s) {
    Type last = Type::none;
    for (const std::string &modifier : s.statement.modifiers)
        if (type_named(modifier) != Type::none) last = type_named(modifier);
    return last;
}

void select_setp(Selection &s) {
    const Type type = type_compared(s);
    const int comparison = take_comparison(s, type);
    s.instruction.count = uint8_t(s.take_one({"and", "or", "xor"}) + 1);
    const bool ftz = s.take("ftz");
    s.take_type();
    s.result(&Instruction::d, s.operand(0), Width::bit);
    if (!s.operand(0).parts.empty()) s.result(&Instruction::c, s.operand(0).parts[0], Width::bit);
    s.source(&Instruction::a, 1, type);
    s.source(&Instruction::b, 2, type);
    if (s.instruction.count != alone) s.more_source(s.operand(3), Type::pred);
    s.run(handlers<false>(s, type, ftz, comparison));
}

void select_set(Selection &s) {
    const Type type = type_compared(s);
    const int comparison = take_comparison(s, type);
    s.instruction.count = uint8_t(s.take_one({"and", "or", "xor"}) + 1);
    const bool ftz = s.take("ftz");
    const Type to = s.take_type();
    if (s.next_is_type()) s.take_type();
    s.result(&Instruction::d, 0, to);
    s.source(&Instruction::a, 1, type);
    s.source(&Instruction::b, 2, type);
    if (s.instruction.count != alone) s.more_source(s.operand(3), Type::pred);
    s.instruction.immediate = to == Type::f32                          ? 0x3f800000
                              : to == Type::f16 || to == Type::f16x2   ? 0x3c00
                              : to == Type::bf16 || to == Type::bf16x2 ? 0x3f80
                              : bytes_of(to) == 2                      ? 0xffff
                                                                       : int64_t(ALL);
    s.run(handlers<true>(s, type, ftz, comparison));
}

enum Class { FINITE, INFINITE, NUMBER, NOT_A_NUMBER, NORMAL, SUBNORMAL };
template <class T, int C> const Instruction *testp(Warp &w, const Instruction &i) {
    const T *a = w.at<T>(i.a);
    w.set_bits(i.d, bits_where([&](int l) {
                   const int kind = std::fpclassify(a[l]);
                   switch (C) {
                   case FINITE:
                       return kind != FP_INFINITE && kind != FP_NAN;
                   case INFINITE:
                       return kind == FP_INFINITE;
                   case NUMBER:
                       return kind != FP_NAN;
                   case NOT_A_NUMBER:
                       return kind == FP_NAN;
                   case NORMAL:
                       return kind == FP_NORMAL;
                   default:
                       return kind == FP_SUBNORMAL;
                   }
               }));
    return &i + 1;
}
template <class T> Handlers testp_of(int c) {
    const auto both = [](Handler h) { return Handlers{h, h}; };
    switch (c) {
    case FINITE:
        return both(testp<T, FINITE>);
    case INFINITE:
        return both(testp<T, INFINITE>);
    case NUMBER:
        return both(testp<T, NUMBER>);
    case NOT_A_NUMBER:
        return both(testp<T, NOT_A_NUMBER>);
    case NORMAL:
        return both(testp<T, NORMAL>);
    default:
        return both(testp<T, SUBNORMAL>);
    }
}
void select_testp(Selection &s) {
    const int c = s.take_one({"finite", "infinite", "number", "notanumber", "normal", "subnormal"});
    const Type type = s.take_type();
    s.result(&Instruction::d, s.operand(0), Width::bit);
    s.source(&Instruction::a, 1, type);
    s.run(type == Type::f64 ? testp_of<double>(c) : testp_of<float>(c));
}

}  // namespace

void add_compare(Selectors &s) {
    s["setp"] = select_setp;
    s["set"] = select_set;
    s["testp"] = select_testp;
}

}  // namespace gpu
