// Operations between the lanes of a warp: shfl, vote, match, redux, activemask, elect.
#include <algorithm>

#include "collective.h"
#include "elementwise.h"

namespace gpu {
namespace {

enum Mode { UP, DOWN, BUTTERFLY, INDEX };

// more: the mask, and the predicate "in range" if there is one.
template <int MODE> const Instruction *shfl(Warp &w, const Instruction &i) {
    const uint32_t members = member_mask(w, i.more[0]);
    return together(w, i, members, [&] {
        const uint32_t *b = w.at<uint32_t>(i.b), *c = w.at<uint32_t>(i.c);
        uint32_t value[LANES], in_range = 0;
        memcpy(value, w.at<uint32_t>(i.a), sizeof value);
        int source[LANES];
        for (int l = 0; l < LANES; ++l) {
            // PTX ISA, "shfl.sync", "Semantics".
            const int b_l = int(b[l] & 31), segment = int(c[l] >> 8 & 31), clamp = int(c[l] & 31);
            const int last = (l & segment) | (clamp & ~segment), first = l & segment;
            int j = MODE == UP          ? l - b_l
                    : MODE == DOWN      ? l + b_l
                    : MODE == BUTTERFLY ? l ^ b_l
                                        : first | (b_l & ~segment);
            const bool inside = MODE == UP ? j >= last : j <= last;
            source[l] = inside ? j : l;
            in_range |= uint32_t(inside) << l;
        }
        for (uint32_t rest = w.active; rest; rest &= rest - 1) {
            const int l = lowest(rest);
            if (!(w.active >> source[l] & 1))
                fault(FaultKind::lanes, w, l,
                      "a shuffle at " + place_of(w.block->running.program, i) + " asks for lane " +
                          std::to_string(source[l]) + ", which does not take part");
        }
        if (i.d != NO_OPERAND)
            write_lanes<false>(w.at<uint32_t>(i.d), w.active,
                               [&](int l) { return value[source[l]]; });
        if (i.more[1] != NO_OPERAND) w.set_bits(i.more[1], in_range);
    });
}

void select_shfl(Selection &s) {
    s.take("sync");
    const int mode = s.take_one({"up", "down", "bfly", "idx"});
    s.take_type();
    const Operand &to = s.operand(0);
    s.result(&Instruction::d, to, Width::word);
    for (int k = 0; k < 3; ++k) {
        constexpr uint32_t Instruction::*fields[] = {&Instruction::a, &Instruction::b,
                                                     &Instruction::c};
        s.source(fields[k], size_t(k) + 1, Type::b32);
    }
    s.more_source(s.operand(4), Type::b32);
    s.more_result(to.parts.empty() ? Operand() : to.parts[0], Width::bit);
    const Handler handlers[] = {shfl<UP>, shfl<DOWN>, shfl<BUTTERFLY>, shfl<INDEX>};
    if (mode < 0) s.refuse("it has no mode");
    s.run({handlers[mode], handlers[mode]});
}

enum Vote { ALL_OF, ANY_OF, UNIFORM, BALLOT };
template <int VOTE> const Instruction *vote(Warp &w, const Instruction &i) {
    return together(w, i, member_mask(w, i.b), [&] {
        const uint32_t votes = w.bits(i.a) & w.active;
        const bool all = votes == w.active;
        if (VOTE == BALLOT)
            write_lanes<false>(w.at<uint32_t>(i.d), w.active, [&](int) { return votes; });
        else
            w.set_bits(i.d, (VOTE == ALL_OF   ? all
                             : VOTE == ANY_OF ? votes != 0
                                              : all || !votes)
                                ? ALL
                                : 0);
    });
}
void select_vote(Selection &s) {
    s.take("sync");
    const int kind = s.take_one({"all", "any", "uni", "ballot"});
    const Type type = s.take_type();
    s.result(&Instruction::d, 0, type);
    s.source(&Instruction::a, 1, Type::pred);
    s.source(&Instruction::b, 2, Type::b32);
    const Handler handlers[] = {vote<ALL_OF>, vote<ANY_OF>, vote<UNIFORM>, vote<BALLOT>};
    if (kind < 0) s.refuse("it has no mode");
    s.run({handlers[kind], handlers[kind]});
}

template <class T, bool EVERY> const Instruction *match(Warp &w, const Instruction &i) {
    return together(w, i, member_mask(w, i.b), [&] {
        const T *a = w.at<T>(i.a);
        uint32_t equal[LANES] = {}, all = 0;
        for (uint32_t rest = w.active; rest; rest &= rest - 1)
            for (uint32_t others = w.active; others; others &= others - 1)
                if (a[lowest(rest)] == a[lowest(others)])
                    equal[lowest(rest)] |= 1u << lowest(others);
        if (EVERY) {
            all = equal[lowest(w.active)] == w.active ? ALL : 0;
            for (uint32_t &lanes : equal) lanes = all ? w.active : 0;
            if (i.more[0] != NO_OPERAND) w.set_bits(i.more[0], all);
        }
        write_lanes<false>(w.at<uint32_t>(i.d), w.active, [&](int l) { return equal[l]; });
    });
}
void select_match(Selection &s) {
    const bool every = s.take_one({"any", "all"}) == 1;
    s.take("sync");
    const Type type = s.take_type();
    const Operand &to = s.operand(0);
    s.result(&Instruction::d, to, Width::word);
    s.more_result(to.parts.empty() ? Operand() : to.parts[0], Width::bit);
    s.source(&Instruction::a, 1, type);
    s.source(&Instruction::b, 2, Type::b32);
    const bool pair = width_of(type) == Width::pair;
    const Handler handler = pair ? (every ? match<uint64_t, true> : match<uint64_t, false>)
                                 : (every ? match<uint32_t, true> : match<uint32_t, false>);
    s.run({handler, handler});
}

struct Sum {
    template <class T> T operator()(T a, T b) const { return T(uint32_t(a) + uint32_t(b)); }
};
struct Least {
    template <class T> T operator()(T a, T b) const { return std::min(a, b); }
};
struct Most {
    template <class T> T operator()(T a, T b) const { return std::max(a, b); }
};
struct BitAnd {
    template <class T> T operator()(T a, T b) const { return a & b; }
};
struct BitOr {
    template <class T> T operator()(T a, T b) const { return a | b; }
};
struct BitXor {
    template <class T> T operator()(T a, T b) const { return a ^ b; }
};

template <class T, class Op> const Instruction *redux(Warp &w, const Instruction &i) {
    return together(w, i, member_mask(w, i.b), [&] {
        const T *a = w.at<T>(i.a);
        T result = a[lowest(w.active)];
        for (uint32_t rest = w.active & (w.active - 1); rest; rest &= rest - 1)
            result = Op()(result, a[lowest(rest)]);
        write_lanes<false>(w.at<T>(i.d), w.active, [&](int) { return result; });
    });
}
void select_redux(Selection &s) {
    s.take("sync");
    const int op = s.take_one({"add", "min", "max", "and", "or", "xor"});
    const bool is_signed = s.take_type() == Type::s32;
    operands(s, Type::b32, 1);
    s.source(&Instruction::b, 2, Type::b32);
    const Handler handlers[] = {redux<uint32_t, Sum>,
                                is_signed ? redux<int32_t, Least> : redux<uint32_t, Least>,
                                is_signed ? redux<int32_t, Most> : redux<uint32_t, Most>,
                                redux<uint32_t, BitAnd>,
                                redux<uint32_t, BitOr>,
                                redux<uint32_t, BitXor>};
    if (op < 0) s.refuse("its operation is not supported");
    s.run({handlers[op], handlers[op]});
}

const Instruction *activemask(Warp &w, const Instruction &i) {
    write_lanes<false>(w.at<uint32_t>(i.d), w.active, [&](int) { return w.active; });
    return &i + 1;
}
void select_activemask(Selection &s) {
    s.take_type();
    s.result(&Instruction::d, 0, Type::b32);
    s.run({activemask, activemask});
}

const Instruction *elect(Warp &w, const Instruction &i) {
    return together(w, i, member_mask(w, i.a), [&] {
        const uint32_t leader = uint32_t(lowest(w.active));
        if (i.d != NO_OPERAND)
            write_lanes<false>(w.at<uint32_t>(i.d), w.active, [&](int) { return leader; });
        w.set_bits(i.more[0], 1u << leader);
    });
}
void select_elect(Selection &s) {
    s.take("sync");
    const Operand &to = s.operand(0);
    s.result(&Instruction::d, to, Width::word);
    if (to.parts.empty()) s.refuse("it needs a predicate");
    s.more_result(to.parts[0], Width::bit);
    s.source(&Instruction::a, 1, Type::b32);
    s.run({elect, elect});
}

}  // namespace

void add_warp(Selectors &s) {
    s["shfl"] = select_shfl;
    s["vote"] = select_vote;
    s["match"] = select_match;
    s["redux"] = select_redux;
    s["activemask"] = select_activemask;
    s["elect"] = select_elect;
}

}  // namespace gpu
