// mov, cvta, isspacep: values and addresses from one place to another.
#include "block.h"
#include "elementwise.h"

namespace gpu {
namespace {

struct Same {
    template <class T> T operator()(T a) const { return a; }
};

const Instruction *move_predicate(Warp &w, const Instruction &i) {
    w.set_bits(i.d, w.bits(i.a));
    return &i + 1;
}

// Parts of a register to registers and back: {lo, hi} of 64 or 32 bits.
template <class Whole, class Part, bool FULL>
const Instruction *unpack(Warp &w, const Instruction &i) {
    const Whole *a = w.at<Whole>(i.a);
    for (int k = 0; k < i.count; ++k) {
        if (i.more[k] == NO_OPERAND) continue;
        const int shift = k * int(sizeof(Whole) * 8) / i.count;
        write_lanes<FULL>(w.at<Stored<Part>>(i.more[k]), w.active,
                          [&](int l) { return stored<Part>(Part(a[l] >> shift)); });
    }
    return &i + 1;
}
template <class Whole, class Part, bool FULL>
const Instruction *pack(Warp &w, const Instruction &i) {
    write_lanes<FULL>(w.at<Whole>(i.d), w.active, [&](int l) {
        Whole result = 0;
        for (int k = 0; k < i.count; ++k)
            result |= Whole(Part(w.at<Stored<Part>>(i.more[k])[l]))
                      << k * int(sizeof(Whole) * 8) / i.count;
        return result;
    });
    return &i + 1;
}

template <class Whole, class Part> void select_parts(Selection &s, bool from_vector, Type part) {
    const Operand &vector = s.operand(from_vector ? 1 : 0);
    s.instruction.count = uint8_t(vector.parts.size());
    for (const Operand &o : vector.parts) {
        if (from_vector)
            s.more_source(o, part);
        else
            s.more_result(o, width_of(part));
    }
    if (from_vector)
        s.run({pack<Whole, Part, true>, pack<Whole, Part, false>});
    else
        s.run({unpack<Whole, Part, true>, unpack<Whole, Part, false>});
}

Type clock_type(const Operand &o) {
    if (o.text == "%clock" || o.text == "%clock_hi" || o.text == "%globaltimer_lo" ||
        o.text == "%globaltimer_hi")
        return Type::u32;
    return o.text == "%clock64" || o.text == "%globaltimer" ? Type::u64 : Type::none;
}

void mov(Selection &s) {
    const Type type = s.take_type();
    const Operand &to = s.operand(0), &from = s.operand(1);
    const bool packs = from.kind == Operand::vector, unpacks = to.kind == Operand::vector;
    if (packs || unpacks) {
        const size_t parts = (packs ? from : to).parts.size();
        if (packs)
            s.result(&Instruction::d, 0, type);
        else
            s.source(&Instruction::a, 1, type);
        const uint32_t bytes = bytes_of(type);
        if (bytes == 8 && parts == 2) return select_parts<uint64_t, uint32_t>(s, packs, Type::b32);
        if (bytes == 8 && parts == 4) return select_parts<uint64_t, uint16_t>(s, packs, Type::b16);
        if (bytes == 4 && parts == 2) return select_parts<uint32_t, uint16_t>(s, packs, Type::b16);
        s.refuse("parts of this number and size are not supported");
    }
    if (clock_type(from) != Type::none) return select_clock(s, type);
    s.result(&Instruction::d, 0, type);
    s.source(&Instruction::a, 1, type);
    if (type == Type::pred)
        s.run({move_predicate, move_predicate});
    else if (width_of(type) == Width::pair)
        s.run(unary_in<uint64_t, Same>());
    else
        s.run(unary_in<uint32_t, Same>());
}

// ---- address spaces ----------------------------------------------------------------------------

uint64_t window_of(Space space) {
    return space == Space::shared      ? SHARED_WINDOW
           : space == Space::local     ? LOCAL_WINDOW
           : space == Space::parameter ? PARAMETER_WINDOW
                                       : 0;
}

Space take_space(Selection &s) {
    const int found = s.take_one({"global", "const", "shared", "shared::cta", "local", "param"});
    constexpr Space spaces[] = {Space::global, Space::constant, Space::shared,
                                Space::shared, Space::local,    Space::parameter};
    if (found < 0) s.refuse("it names no state space that is supported");
    return spaces[found];
}

// To a generic address, by adding the start of the window; from one, by subtracting it.
template <class D, class A, bool FULL> const Instruction *cvta(Warp &w, const Instruction &i) {
    const A *a = w.at<A>(i.a);
    write_lanes<FULL>(w.at<D>(i.d), w.active,
                      [&](int l) { return D(a[l] + uint64_t(i.immediate)); });
    return &i + 1;
}
void select_cvta(Selection &s) {
    const bool to = s.take("to");
    const Space space = take_space(s);
    const Type type = s.take_type();
    operands(s, type, 1);
    s.instruction.immediate = int64_t(to ? -window_of(space) : window_of(space));
    if (width_of(type) == Width::pair)
        s.run({cvta<uint64_t, uint64_t, true>, cvta<uint64_t, uint64_t, false>});
    else
        s.run({cvta<uint32_t, uint32_t, true>, cvta<uint32_t, uint32_t, false>});
}

const Instruction *isspacep(Warp &w, const Instruction &i) {
    const uint64_t *a = w.at<uint64_t>(i.a);
    const uint64_t window = uint64_t(i.immediate);
    w.set_bits(i.d, bits_where([&](int l) {
                   return window ? a[l] - window < WINDOW_BYTES : a[l] < SHARED_WINDOW;
               }));
    return &i + 1;
}
void select_isspacep(Selection &s) {
    s.instruction.immediate = int64_t(window_of(take_space(s)));
    s.result(&Instruction::d, s.operand(0), Width::bit);
    s.source(&Instruction::a, 1, Type::b64);
    s.run({isspacep, isspacep});
}

}  // namespace

void add_move(Selectors &s) {
    s["mov"] = mov;
    s["cvta"] = select_cvta;
    s["isspacep"] = select_isspacep;
}

}  // namespace gpu
