// Handlers of instructions that treat every lane by itself.
#pragma once

#include "lanes.h"
#include "selection.h"
#include "warp.h"

namespace gpu {

template <class D, class A, class Op, bool FULL>
const Instruction *unary(Warp &w, const Instruction &i) {
    const Stored<A> *a = w.at<Stored<A>>(i.a);
    write_lanes<FULL>(w.at<Stored<D>>(i.d), w.active,
                      [&](int l) { return stored<D>(Op()(value_of<A>(a[l]))); });
    return &i + 1;
}
template <class D, class A, class B, class Op, bool FULL>
const Instruction *binary(Warp &w, const Instruction &i) {
    const Stored<A> *a = w.at<Stored<A>>(i.a);
    const Stored<B> *b = w.at<Stored<B>>(i.b);
    write_lanes<FULL>(w.at<Stored<D>>(i.d), w.active,
                      [&](int l) { return stored<D>(Op()(value_of<A>(a[l]), value_of<B>(b[l]))); });
    return &i + 1;
}
template <class D, class A, class B, class C, class Op, bool FULL>
const Instruction *ternary(Warp &w, const Instruction &i) {
    const Stored<A> *a = w.at<Stored<A>>(i.a);
    const Stored<B> *b = w.at<Stored<B>>(i.b);
    const Stored<C> *c = w.at<Stored<C>>(i.c);
    write_lanes<FULL>(w.at<Stored<D>>(i.d), w.active, [&](int l) {
        return stored<D>(Op()(value_of<A>(a[l]), value_of<B>(b[l]), value_of<C>(c[l])));
    });
    return &i + 1;
}

template <class D, class A, class Op> Handlers unary_of() {
    return {unary<D, A, Op, true>, unary<D, A, Op, false>};
}
template <class D, class A, class B, class Op> Handlers binary_of() {
    return {binary<D, A, B, Op, true>, binary<D, A, B, Op, false>};
}
template <class D, class A, class B, class C, class Op> Handlers ternary_of() {
    return {ternary<D, A, B, C, Op, true>, ternary<D, A, B, C, Op, false>};
}
// All operands of one type.
template <class T, class Op> Handlers unary_in() { return unary_of<T, T, Op>(); }
template <class T, class Op> Handlers binary_in() { return binary_of<T, T, T, Op>(); }
template <class T, class Op> Handlers ternary_in() { return ternary_of<T, T, T, T, Op>(); }

// Calls pick(T()) with the C++ type of a PTX integer type.
template <class Pick> Handlers for_integer(Selection &s, Type type, Pick pick) {
    switch (type) {
    case Type::u16:
    case Type::b16:
        return pick(uint16_t());
    case Type::s16:
        return pick(int16_t());
    case Type::u32:
    case Type::b32:
        return pick(uint32_t());
    case Type::s32:
        return pick(int32_t());
    case Type::u64:
    case Type::b64:
        return pick(uint64_t());
    case Type::s64:
        return pick(int64_t());
    default:
        s.refuse(std::string("it does not take the type .") + name_of(type));
    }
}

// d = a, d = a op b, d = op(a, b, c): the operands of one type.
inline void operands(Selection &s, Type type, size_t sources) {
    s.result(&Instruction::d, 0, type);
    if (sources > 0) s.source(&Instruction::a, 1, type);
    if (sources > 1) s.source(&Instruction::b, 2, type);
    if (sources > 2) s.source(&Instruction::c, 3, type);
}

}  // namespace gpu
