// atom and red: atomic read-modify-write operations.
#include <functional>

#include "access.h"
#include "elementwise.h"
#include "floats.h"
#include "report.h"

namespace gpu {
namespace {

struct Add {
    template <class T> T operator()(T a, T b) const {
        if constexpr (std::is_floating_point_v<T>)
            return canonical(a + b);
        else
            return T(std::make_unsigned_t<T>(a) + std::make_unsigned_t<T>(b));
    }
};
struct FlushedAdd {
    float operator()(float a, float b) const { return flush(canonical(flush(a) + flush(b))); }
};
struct Min {
    template <class T> T operator()(T a, T b) const { return b < a ? b : a; }
};
struct Max {
    template <class T> T operator()(T a, T b) const { return a < b ? b : a; }
};
struct Exchange {
    template <class T> T operator()(T, T b) const { return b; }
};
struct Increment {
    uint32_t operator()(uint32_t a, uint32_t b) const { return a >= b ? 0 : a + 1; }
};
struct Decrement {
    uint32_t operator()(uint32_t a, uint32_t b) const { return a == 0 || a > b ? b : a - 1; }
};
template <class N> struct NarrowAdd {
    uint16_t operator()(uint16_t a, uint16_t b) const {
        N sum;
        narrow(wide(N{a}) + wide(N{b}), sum);
        return sum.bits;
    }
};
template <class N> struct PackedAdd {
    uint32_t operator()(uint32_t a, uint32_t b) const {
        const NarrowAdd<N> add;
        return uint32_t(add(uint16_t(a), uint16_t(b))) |
               uint32_t(add(uint16_t(a >> 16), uint16_t(b >> 16))) << 16;
    }
};

// Other host threads may do the same to the same address at once.
template <class T, class Change> T change_atomically(void *address, Change change) {
    using Bits = std::conditional_t<sizeof(T) == 8, uint64_t,
                                    std::conditional_t<sizeof(T) == 4, uint32_t, uint16_t>>;
    Bits *at = static_cast<Bits *>(address);
    Bits old = __atomic_load_n(at, __ATOMIC_SEQ_CST);
    for (;;) {
        const Bits now = bits_as<Bits>(change(bits_as<T>(old)));
        if (__atomic_compare_exchange_n(at, &old, now, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
            return bits_as<T>(old);
    }
}

// Lanes go one after the other, lowest first.
template <class T, class Op> const Instruction *atomic(Warp &w, const Instruction &i) {
    Addresses addresses = addresses_of(w, i);
    check_access(w, i, i.space, addresses, sizeof(T), sizeof(T), Access::atomic);
    const Stored<T> *b = w.at<Stored<T>>(i.b);
    Stored<T> old[LANES] = {};
    for (uint32_t rest = w.active; rest; rest &= rest - 1) {
        const int l = lowest(rest);
        const T operand = value_of<T>(b[l]);
        old[l] = stored<T>(change_atomically<T>(reinterpret_cast<void *>(addresses.of[l]),
                                                [&](T a) { return T(Op()(a, operand)); }));
    }
    if (i.d != NO_OPERAND)
        write_lanes<false>(w.at<Stored<T>>(i.d), w.active, [&](int l) { return old[l]; });
    return &i + 1;
}

template <class T> const Instruction *compare_and_swap(Warp &w, const Instruction &i) {
    Addresses addresses = addresses_of(w, i);
    check_access(w, i, i.space, addresses, sizeof(T), sizeof(T), Access::atomic);
    const Stored<T> *b = w.at<Stored<T>>(i.b), *c = w.at<Stored<T>>(i.c);
    Stored<T> old[LANES] = {};
    for (uint32_t rest = w.active; rest; rest &= rest - 1) {
        const int l = lowest(rest);
        const T wanted = value_of<T>(b[l]), now = value_of<T>(c[l]);
        old[l] = stored<T>(change_atomically<T>(reinterpret_cast<void *>(addresses.of[l]),
                                                [&](T a) { return a == wanted ? now : a; }));
    }
    if (i.d != NO_OPERAND)
        write_lanes<false>(w.at<Stored<T>>(i.d), w.active, [&](int l) { return old[l]; });
    return &i + 1;
}

template <class T, class Op> Handler handler() { return atomic<T, Op>; }

Handler handler_of(Selection &s, const std::string &op, Type type, bool ftz) {
    using U32 = uint32_t;
    using U64 = uint64_t;
    const bool wide = bytes_of(type) == 8;
    if (op == "add") switch (type) {
        case Type::u32:
        case Type::s32:
            return handler<U32, Add>();
        case Type::u64:
        case Type::s64:
            return handler<U64, Add>();
        case Type::f32:
            return ftz ? handler<float, FlushedAdd>() : handler<float, Add>();
        case Type::f64:
            return handler<double, Add>();
        case Type::f16:
            return handler<uint16_t, NarrowAdd<Half>>();
        case Type::bf16:
            return handler<uint16_t, NarrowAdd<Bfloat>>();
        case Type::f16x2:
            return handler<U32, PackedAdd<Half>>();
        case Type::bf16x2:
            return handler<U32, PackedAdd<Bfloat>>();
        default:
            break;
        }
    if (op == "min" || op == "max") {
        const bool least = op == "min";
        switch (type) {
        case Type::u32:
            return least ? handler<U32, Min>() : handler<U32, Max>();
        case Type::s32:
            return least ? handler<int32_t, Min>() : handler<int32_t, Max>();
        case Type::u64:
            return least ? handler<U64, Min>() : handler<U64, Max>();
        case Type::s64:
            return least ? handler<int64_t, Min>() : handler<int64_t, Max>();
        default:
            break;
        }
    }
    if (op == "and") return wide ? handler<U64, std::bit_and<>>() : handler<U32, std::bit_and<>>();
    if (op == "or") return wide ? handler<U64, std::bit_or<>>() : handler<U32, std::bit_or<>>();
    if (op == "xor") return wide ? handler<U64, std::bit_xor<>>() : handler<U32, std::bit_xor<>>();
    if (op == "exch") return wide ? handler<U64, Exchange>() : handler<U32, Exchange>();
    if (op == "inc") return handler<U32, Increment>();
    if (op == "dec") return handler<U32, Decrement>();
    if (op == "cas") {
        if (bytes_of(type) == 2) return compare_and_swap<uint16_t>;
        return wide ? compare_and_swap<U64> : compare_and_swap<U32>;
    }
    s.refuse("this operation on this type is not supported");
}

template <bool RESULT> void select(Selection &s) {
    Instruction &i = s.instruction;
    s.take_one({"relaxed", "acquire", "release", "acq_rel"});
    s.take_one({"cta", "cluster", "gpu", "sys"});
    const int space = s.take_one({"global", "shared", "shared::cta"});
    i.space = space < 0 ? Space::generic : space == 0 ? Space::global : Space::shared;
    const bool ftz = !s.take("noftz");
    s.take("L2::cache_hint");
    std::string op;
    for (const char *name : {"add", "min", "max", "and", "or", "xor", "exch", "inc", "dec", "cas"})
        if (s.take(name)) op = name;
    if (op.empty()) s.refuse("its operation is not supported");
    if (s.has("v2") || s.has("v4") || s.has("v8")) s.refuse("vectors are not supported");
    const Type type = s.take_type();
    const size_t first = RESULT ? 1 : 0;
    if (RESULT) s.result(&Instruction::d, 0, type);
    s.address(first);
    s.source(&Instruction::b, first + 1, type);
    if (op == "cas") s.source(&Instruction::c, first + 2, type);
    if (i.space != Space::global) s.shared_access(bytes_of(type));
    if (i.space != Space::shared) s.strong_access();
    // Sums of float in global memory flush subnormals: PTX ISA, "atom".
    const Handler chosen = handler_of(s, op, type, ftz && i.space == Space::global);
    s.run({chosen, chosen});
}

}  // namespace

void add_atomics(Selectors &s) {
    s["atom"] = select<true>;
    s["red"] = select<false>;
}

}  // namespace gpu
