// Floating-point arithmetic.
#include <algorithm>

#include "elementwise.h"
#include "floats.h"

namespace gpu {
namespace {

// ---- operations on host numbers ----------------------------------------------------------------

struct Add {
    template <class T> T operator()(T a, T b) const { return a + b; }
};
struct Sub {
    template <class T> T operator()(T a, T b) const { return a - b; }
};
struct Mul {
    template <class T> T operator()(T a, T b) const { return a * b; }
};
struct Div {
    template <class T> T operator()(T a, T b) const { return a / b; }
};
struct Fma {
    float operator()(float a, float b, float c) const { return __builtin_fmaf(a, b, c); }
    double operator()(double a, double b, double c) const { return __builtin_fma(a, b, c); }
};
struct Abs {
    template <class T> T operator()(T a) const { return std::fabs(a); }
};
struct Neg {
    template <class T> T operator()(T a) const { return -a; }
};
// Of a number and NaN: the number. -0 is below 0.
struct Min {
    template <class T> T operator()(T a, T b) const {
        const T least = a < b ? a : b < a ? b : std::signbit(a) ? a : b;
        return a != a ? b : b != b ? a : least;
    }
};
struct Max {
    template <class T> T operator()(T a, T b) const {
        const T most = a > b ? a : b > a ? b : std::signbit(a) ? b : a;
        return a != a ? b : b != b ? a : most;
    }
};
// Of a number and NaN: NaN.
template <class Op> struct Strict {
    template <class T> T operator()(T a, T b) const {
        return a != a || b != b ? std::numeric_limits<T>::quiet_NaN() : Op()(a, b);
    }
};
// |a| op |b| with the product of the signs.
template <class Op> struct XorSignAbs {
    float operator()(float a, float b) const {
        const float result = Op()(std::fabs(a), std::fabs(b));
        return std::signbit(a) != std::signbit(b) ? -result : result;
    }
};
struct Sqrt {
    template <class T> T operator()(T a) const { return std::sqrt(a); }
};
struct Reciprocal {
    template <class T> T operator()(T a) const { return T(1) / a; }
};
struct ReciprocalSqrt {
    float operator()(float a) const { return float(1 / std::sqrt(double(a))); }
    double operator()(double a) const { return 1 / std::sqrt(a); }
};
// Approximations are given as the nearest float to the true value.
struct Exp2 {
    float operator()(float a) const { return float(std::exp2(double(a))); }
};
struct Log2 {
    float operator()(float a) const { return float(std::log2(double(a))); }
};
struct Sin {
    float operator()(float a) const { return float(std::sin(double(a))); }
};
struct Cos {
    float operator()(float a) const { return float(std::cos(double(a))); }
};
struct Tanh {
    float operator()(float a) const { return float(std::tanh(double(a))); }
};
// The approximations of double keep the upper word of the result.
template <class Op> struct UpperWord {
    double operator()(double a) const {
        const uint64_t magnitude = bits_as<uint64_t>(a) & ~(uint64_t(1) << 63);
        if (magnitude < uint64_t(1) << 52) a = std::copysign(0.0, a);  // .ftz
        const double exact = Op()(a);
        if (exact != exact) return bits_as<double>(uint64_t(0x7ff8000000000000));
        return bits_as<double>(bits_as<uint64_t>(exact) & 0xffffffff00000000);
    }
};

// ---- float and double --------------------------------------------------------------------------

template <class Op, bool FTZ, bool SAT> struct Wrapped {
    template <class T, class... Rest> T operator()(T a, Rest... rest) const {
        T result = canonical(Op()(flushed<FTZ>(a), flushed<FTZ>(rest)...));
        result = flushed<FTZ>(result);
        return SAT ? saturated(result) : result;
    }
};

template <class T, int SOURCES, class Op> Handlers handlers_in() {
    if constexpr (SOURCES == 1)
        return unary_in<T, Op>();
    else if constexpr (SOURCES == 2)
        return binary_in<T, Op>();
    else
        return ternary_in<T, Op>();
}

template <class T, int SOURCES, class Op> Handlers wrapped(bool ftz, bool sat) {
    if (std::is_same_v<T, double>) return handlers_in<T, SOURCES, Wrapped<Op, false, false>>();
    if (ftz && sat) return handlers_in<T, SOURCES, Wrapped<Op, true, true>>();
    if (ftz) return handlers_in<T, SOURCES, Wrapped<Op, true, false>>();
    if (sat) return handlers_in<T, SOURCES, Wrapped<Op, false, true>>();
    return handlers_in<T, SOURCES, Wrapped<Op, false, false>>();
}

// Instruction::count: the rounding, and these.
constexpr uint8_t ROUNDING = 3, FTZ = 4, SAT = 8, RELU = 16;

// An operation with the flags of its instruction, lane by lane: slower than the handlers above.
template <class T, int SOURCES, class Op>
const Instruction *with_flags(Warp &w, const Instruction &i, Op op) {
    const Stored<T> *a = w.at<Stored<T>>(i.a), *b = a, *c = a;
    if constexpr (SOURCES > 1) b = w.at<Stored<T>>(i.b);
    if constexpr (SOURCES > 2) c = w.at<Stored<T>>(i.c);
    write_lanes<false>(w.at<Stored<T>>(i.d), w.active, [&](int l) {
        const T x = value_of<T>(a[l]), y = value_of<T>(b[l]), z = value_of<T>(c[l]);
        if constexpr (SOURCES == 1)
            return stored<T>(op(x));
        else if constexpr (SOURCES == 2)
            return stored<T>(op(x, y));
        else
            return stored<T>(op(x, y, z));
    });
    return &i + 1;
}

// Rounded another way than to the nearest.
template <class Op> struct Directed {
    uint8_t how;

    template <class T, class... Rest> T operator()(T a, Rest... rest) const {
        if (!(how & FTZ)) return finish(Op()(a, rest...));
        return flushed<true>(finish(Op()(flushed<true>(a), flushed<true>(rest)...)));
    }
    template <class T> T finish(T result) const {
        return how & SAT ? saturated(canonical(result)) : canonical(result);
    }
};
template <class T, int SOURCES, class Op>
const Instruction *directed(Warp &w, const Instruction &i) {
    const RoundingMode mode(host_mode(Rounding(i.count & ROUNDING)));
    return with_flags<T, SOURCES>(w, i, Directed<Op>{i.count});
}
template <class T, int SOURCES, class Op> Handlers by_rounding(uint8_t how) {
    if (how & ROUNDING) return {directed<T, SOURCES, Op>, directed<T, SOURCES, Op>};
    return wrapped<T, SOURCES, Op>(how & FTZ, how & SAT);
}

// ---- narrow types ------------------------------------------------------------------------------

// One number of a narrow type: in float, rounded once at the end.
template <class N, class Op> struct Narrow {
    uint8_t how;

    template <class... Bits> uint16_t operator()(Bits... bits) const {
        float result = Op()(input(bits)...);
        if (how & SAT) result = saturated(result);
        if (how & RELU) result = result > 0 || result != result ? result : 0.0f;
        N narrowed;
        narrow(result, narrowed);
        return flushed_bits(narrowed.bits);
    }
    float input(uint16_t bits) const { return wide(N{flushed_bits(bits)}); }
    uint16_t flushed_bits(uint16_t bits) const {
        if (!(how & FTZ) || !std::is_same_v<N, Half>) return bits;
        return bits & 0x7c00 ? bits : bits & 0x8000;
    }
};
struct NarrowFma {
    float operator()(float a, float b, float c) const { return narrow_fma(a, b, c); }
};

// Both halves of a word.
template <class Op> struct Packed {
    Op op = {};

    template <class... Words> uint32_t operator()(Words... words) const {
        return uint32_t(op(uint16_t(words)...)) | uint32_t(op(uint16_t(words >> 16)...)) << 16;
    }
};

template <class N, int SOURCES, class Op>
const Instruction *narrow_one(Warp &w, const Instruction &i) {
    return with_flags<uint16_t, SOURCES>(w, i, Narrow<N, Op>{i.count});
}
template <class N, int SOURCES, class Op>
const Instruction *narrow_two(Warp &w, const Instruction &i) {
    return with_flags<uint32_t, SOURCES>(w, i, Packed<Narrow<N, Op>>{{i.count}});
}
template <class N, int SOURCES, class Op> Handlers narrow_of(bool packed) {
    const Handler h = packed ? narrow_two<N, SOURCES, Op> : narrow_one<N, SOURCES, Op>;
    return {h, h};
}

// ---- selection ---------------------------------------------------------------------------------

bool is_floating(Type type) {
    return type == Type::f32 || type == Type::f64 || type == Type::f16 || type == Type::f16x2 ||
           type == Type::bf16 || type == Type::bf16x2;
}

template <int SOURCES, class Op, class NarrowOp = Op> void arithmetic(Selection &s) {
    int how = std::max(0, s.take_one({"rn", "rz", "rm", "rp"}));
    if (s.take("ftz")) how |= FTZ;
    if (s.take("sat")) how |= SAT;
    if (s.take("relu")) how |= RELU;
    const Type type = s.take_type();
    operands(s, type, SOURCES);
    s.instruction.count = uint8_t(how);
    switch (type) {
    case Type::f32:
        return s.run(by_rounding<float, SOURCES, Op>(uint8_t(how)));
    case Type::f64:
        return s.run(by_rounding<double, SOURCES, Op>(uint8_t(how)));
    case Type::f16:
    case Type::f16x2:
        return s.run(narrow_of<Half, SOURCES, NarrowOp>(type == Type::f16x2));
    case Type::bf16:
    case Type::bf16x2:
        return s.run(narrow_of<Bfloat, SOURCES, NarrowOp>(type == Type::bf16x2));
    default:
        s.refuse(std::string("it does not take the type .") + name_of(type));
    }
}

// The sign alone: NaN and subnormals stay as they are, but for .ftz.
template <bool NEGATE, class U> struct Sign {
    U operator()(U bits) const {
        constexpr U top = U(U(1) << (sizeof(U) * 8 - 1));
        return NEGATE ? U(bits ^ top) : U(bits & ~top);
    }
};
template <bool NEGATE> struct FlushedSign {
    uint32_t operator()(uint32_t bits) const {
        return bits_as<uint32_t>(flush(bits_as<float>(Sign<NEGATE, uint32_t>()(bits))));
    }
};
template <bool NEGATE> void sign(Selection &s) {
    const bool ftz = s.take("ftz");
    const Type type = s.take_type();
    operands(s, type, 1);
    switch (type) {
    case Type::f32:
        return s.run(ftz ? unary_in<uint32_t, FlushedSign<NEGATE>>()
                         : unary_in<uint32_t, Sign<NEGATE, uint32_t>>());
    case Type::f64:
        return s.run(unary_in<uint64_t, Sign<NEGATE, uint64_t>>());
    case Type::f16:
    case Type::bf16:
        return s.run(unary_in<uint16_t, Sign<NEGATE, uint16_t>>());
    default:
        return s.run(unary_in<uint32_t, Packed<Sign<NEGATE, uint16_t>>>());
    }
}

template <class Op> void extremum(Selection &s) {
    const bool strict = s.take("NaN");
    if (!s.take("xorsign")) return strict ? arithmetic<2, Strict<Op>>(s) : arithmetic<2, Op>(s);
    s.take("abs");
    return strict ? arithmetic<2, XorSignAbs<Strict<Op>>>(s) : arithmetic<2, XorSignAbs<Op>>(s);
}

template <class Op> void approximate(Selection &s) {
    s.take("approx");
    const bool ftz = s.take("ftz");
    const Type type = s.take_type();
    operands(s, type, 1);
    switch (type) {
    case Type::f32:
        return s.run(wrapped<float, 1, Op>(ftz, false));
    case Type::f16:
    case Type::f16x2:
        s.instruction.count = ftz ? FTZ : 0;
        return s.run(narrow_of<Half, 1, Op>(type == Type::f16x2));
    case Type::bf16:
    case Type::bf16x2:
        s.instruction.count = 0;
        return s.run(narrow_of<Bfloat, 1, Op>(type == Type::bf16x2));
    default:
        s.refuse(std::string("it does not take the type .") + name_of(type));
    }
}

template <class Op> void root_or_reciprocal(Selection &s) {
    if (!s.take("approx")) return arithmetic<1, Op>(s);
    const bool ftz = s.take("ftz");
    const Type type = s.take_type();
    operands(s, type, 1);
    if (type == Type::f64) return s.run(unary_in<double, UpperWord<Op>>());
    s.run(wrapped<float, 1, Op>(ftz, false));
}

void div(Selection &s) {
    s.take_one({"approx", "full"});
    arithmetic<2, Div>(s);
}

template <class U> struct CopySign {
    U operator()(U a, U b) const {
        constexpr U top = U(1) << (sizeof(U) * 8 - 1);
        return (a & top) | (b & ~top);
    }
};
void copysign(Selection &s) {
    const Type type = s.take_type();
    operands(s, type, 2);
    s.run(type == Type::f64 ? binary_in<uint64_t, CopySign<uint64_t>>()
                            : binary_in<uint32_t, CopySign<uint32_t>>());
}

const Selectors &floating() {
    static const Selectors all = {
        {"add", arithmetic<2, Add>},
        {"sub", arithmetic<2, Sub>},
        {"mul", arithmetic<2, Mul>},
        {"fma", arithmetic<3, Fma, NarrowFma>},
        {"mad", arithmetic<3, Fma, NarrowFma>},
        {"div", div},
        {"abs", sign<false>},
        {"neg", sign<true>},
        {"min", extremum<Min>},
        {"max", extremum<Max>},
    };
    return all;
}

}  // namespace

bool select_floating(Selection &s) {
    const auto found = floating().find(s.statement.opcode);
    for (const std::string &modifier : s.statement.modifiers)
        if (is_floating(type_named(modifier))) {
            found->second(s);
            return true;
        }
    return false;
}

void add_floating(Selectors &s) {
    s["fma"] = arithmetic<3, Fma, NarrowFma>;
    s["sqrt"] = root_or_reciprocal<Sqrt>;
    s["rcp"] = root_or_reciprocal<Reciprocal>;
    s["rsqrt"] = root_or_reciprocal<ReciprocalSqrt>;
    s["ex2"] = approximate<Exp2>;
    s["lg2"] = approximate<Log2>;
    s["sin"] = approximate<Sin>;
    s["cos"] = approximate<Cos>;
    s["tanh"] = approximate<Tanh>;
    s["copysign"] = copysign;
}

}  // namespace gpu
