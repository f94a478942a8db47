// Bit operations: popc, clz, bfind, brev, bfe, bfi, bmsk, fns, prmt, szext.
#include "elementwise.h"

namespace gpu {
namespace {

struct Count {
    template <class T> uint32_t operator()(T a) const {
        return uint32_t(__builtin_popcountll(uint64_t(a)));
    }
};
struct LeadingZeros {
    uint32_t operator()(uint32_t a) const { return a ? uint32_t(__builtin_clz(a)) : 32; }
    uint32_t operator()(uint64_t a) const { return a ? uint32_t(__builtin_clzll(a)) : 64; }
};
// The highest bit that differs from the sign; all ones if none does.
template <bool DISTANCE> struct Find {
    template <class T> uint32_t operator()(T a) const {
        using U = std::make_unsigned_t<T>;
        const U bits = U(std::is_signed_v<T> && a < 0 ? ~a : a);
        if (bits == 0) return ALL;
        const uint32_t zeros = LeadingZeros()(bits);
        return DISTANCE ? zeros : uint32_t(sizeof(T) * 8) - 1 - zeros;
    }
};
struct Reverse {
    template <class T> T operator()(T a) const {
        T result = 0;
        for (size_t i = 0; i < sizeof(T) * 8; ++i)
            result |= (a >> i & 1) << (sizeof(T) * 8 - 1 - i);
        return result;
    }
};
// A field of c bits from bit b on, sign-extended of signed types. PTX ISA, "bfe".
struct Extract {
    template <class T> T operator()(T a, uint32_t b, uint32_t c) const {
        using U = std::make_unsigned_t<T>;
        constexpr uint32_t last = sizeof(T) * 8 - 1;
        const uint32_t position = b & 255, length = c & 255;
        if (length == 0) return 0;
        const uint32_t top = position + length - 1 < last ? position + length - 1 : last;
        const bool negative = std::is_signed_v<T> && (U(a) >> top & 1);
        U field = position <= last ? U(a) >> position : 0;
        if (length <= last) field &= (U(1) << length) - 1;
        const uint32_t present = position <= last ? last + 1 - position : 0;
        const uint32_t valid = length < present ? length : present;
        if (negative && valid <= last) field |= U(~uint64_t(0) << valid);
        return T(field);
    }
};
// The low d bits of a put into b from bit c on.
template <class T, bool FULL> const Instruction *insert(Warp &w, const Instruction &i) {
    const T *a = w.at<T>(i.a), *b = w.at<T>(i.b);
    const uint32_t *c = w.at<uint32_t>(i.c), *d = w.at<uint32_t>(i.more[0]);
    write_lanes<FULL>(w.at<T>(i.d), w.active, [&](int l) {
        constexpr uint32_t bits = sizeof(T) * 8;
        const uint32_t position = c[l] & 255, length = d[l] & 255;
        const T ones = length >= bits ? ~T(0) : (T(1) << length) - 1;
        const T mask = position >= bits ? T(0) : T(ones << position);
        return (b[l] & ~mask) | (position >= bits ? T(0) : T(a[l] << position) & mask);
    });
    return &i + 1;
}
template <bool WRAP> struct Mask {
    uint32_t operator()(uint32_t a, uint32_t b) const {
        if (WRAP) a &= 31, b &= 31;
        if (a >= 32 || b == 0) return 0;
        const uint32_t ones = b >= 32 ? ALL : (1u << b) - 1;
        return ones << a;
    }
};
// The n-th set bit of a mask from a base on, upwards or downwards; all ones if there is none.
struct NthSet {
    uint32_t operator()(uint32_t mask, uint32_t base, int32_t offset) const {
        if (offset == 0) return mask >> base & 1 ? base : ALL;
        const int step = offset > 0 ? 1 : -1;
        int left = offset * step;
        for (int at = int(base); at >= 0 && at < 32; at += step)
            if ((mask >> at & 1) && --left == 0) return uint32_t(at);
        return ALL;
    }
};
// Bytes of b:a chosen by c.
enum PermuteMode { GENERIC, F4E, B4E, RC8, ECL, ECR, RC16 };
template <int MODE> struct Permute {
    uint32_t operator()(uint32_t a, uint32_t b, uint32_t c) const {
        const uint64_t bytes = uint64_t(b) << 32 | a;
        uint32_t result = 0;
        for (uint32_t i = 0; i < 4; ++i) {
            const uint32_t n = c & 3;
            const uint32_t selector = MODE == GENERIC ? c >> 4 * i & 15
                                      : MODE == F4E   ? n + i
                                      : MODE == B4E   ? (n - i) & 7
                                      : MODE == RC8   ? n
                                      : MODE == ECL   ? (i > n ? i : n)
                                      : MODE == ECR   ? (i < n ? i : n)
                                                      : (n & 1) * 2 + (i & 1);
            uint32_t byte = uint32_t(bytes >> 8 * (selector & 7)) & 255;
            if (MODE == GENERIC && (selector & 8)) byte = byte & 128 ? 255 : 0;
            result |= byte << 8 * i;
        }
        return result;
    }
};
// A number of b bits, extended to 32.
template <bool WRAP, bool SIGNED> struct Extend {
    uint32_t operator()(uint32_t a, uint32_t b) const {
        if (WRAP) b &= 31;
        if (b == 0) return 0;
        if (b >= 32) return a;
        const uint32_t up = a << (32 - b);
        return SIGNED ? uint32_t(int32_t(up) >> (32 - b)) : up >> (32 - b);
    }
};

template <class Op> void to_word(Selection &s) {
    const Type type = s.take_type();
    s.result(&Instruction::d, 0, Type::b32);
    s.source(&Instruction::a, 1, type);
    s.run(width_of(type) == Width::pair ? unary_of<uint32_t, uint64_t, Op>()
                                        : unary_of<uint32_t, uint32_t, Op>());
}
void bfind(Selection &s) {
    const bool distance = s.take("shiftamt");
    const Type type = s.take_type();
    s.result(&Instruction::d, 0, Type::b32);
    s.source(&Instruction::a, 1, type);
    s.run(for_integer(s, type, [&](auto t) {
        using T = decltype(t);
        if constexpr (sizeof(T) == 2) {
            s.refuse("it does not take 16-bit types");
            return Handlers();
        } else {
            return distance ? unary_of<uint32_t, T, Find<true>>()
                            : unary_of<uint32_t, T, Find<false>>();
        }
    }));
}
void brev(Selection &s) {
    const Type type = s.take_type();
    operands(s, type, 1);
    s.run(width_of(type) == Width::pair ? unary_in<uint64_t, Reverse>()
                                        : unary_in<uint32_t, Reverse>());
}
void bfe(Selection &s) {
    const Type type = s.take_type();
    operands(s, type, 1);
    s.source(&Instruction::b, 2, Type::u32);
    s.source(&Instruction::c, 3, Type::u32);
    s.run(for_integer(s, type, [](auto t) {
        using T = decltype(t);
        return ternary_of<T, T, uint32_t, uint32_t, Extract>();
    }));
}
void bfi(Selection &s) {
    const Type type = s.take_type();
    operands(s, type, 2);
    s.source(&Instruction::c, 3, Type::u32);
    s.more_source(s.operand(4), Type::u32);
    if (width_of(type) == Width::pair)
        s.run({insert<uint64_t, true>, insert<uint64_t, false>});
    else
        s.run({insert<uint32_t, true>, insert<uint32_t, false>});
}
void bmsk(Selection &s) {
    const bool wrap = s.take_one({"clamp", "wrap"}) == 1;
    operands(s, s.take_type(), 2);
    s.run(wrap ? binary_in<uint32_t, Mask<true>>() : binary_in<uint32_t, Mask<false>>());
}
void fns(Selection &s) {
    operands(s, s.take_type(), 3);
    s.run(ternary_of<uint32_t, uint32_t, uint32_t, int32_t, NthSet>());
}
void prmt(Selection &s) {
    s.take("b32");
    const int mode = s.take_one({"f4e", "b4e", "rc8", "ecl", "ecr", "rc16"});
    operands(s, Type::b32, 3);
    switch (mode + 1) {
    case F4E:
        return s.run(ternary_in<uint32_t, Permute<F4E>>());
    case B4E:
        return s.run(ternary_in<uint32_t, Permute<B4E>>());
    case RC8:
        return s.run(ternary_in<uint32_t, Permute<RC8>>());
    case ECL:
        return s.run(ternary_in<uint32_t, Permute<ECL>>());
    case ECR:
        return s.run(ternary_in<uint32_t, Permute<ECR>>());
    case RC16:
        return s.run(ternary_in<uint32_t, Permute<RC16>>());
    default:
        return s.run(ternary_in<uint32_t, Permute<GENERIC>>());
    }
}
void szext(Selection &s) {
    const bool wrap = s.take_one({"clamp", "wrap"}) == 1;
    const bool is_signed = s.take_type() == Type::s32;
    operands(s, Type::b32, 2);
    if (is_signed)
        s.run(wrap ? binary_in<uint32_t, Extend<true, true>>()
                   : binary_in<uint32_t, Extend<false, true>>());
    else
        s.run(wrap ? binary_in<uint32_t, Extend<true, false>>()
                   : binary_in<uint32_t, Extend<false, false>>());
}

}  // namespace

void add_bits(Selectors &s) {
    s["popc"] = to_word<Count>;
    s["clz"] = to_word<LeadingZeros>;
    s["bfind"] = bfind;
    s["brev"] = brev;
    s["bfe"] = bfe;
    s["bfi"] = bfi;
    s["bmsk"] = bmsk;
    s["fns"] = fns;
    s["prmt"] = prmt;
    s["szext"] = szext;
}

}  // namespace gpu
