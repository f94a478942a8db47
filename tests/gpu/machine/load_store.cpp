// ld, st, ldu, prefetch: memory to registers and back.
#include "access.h"
#include "elementwise.h"
#include "races.h"

namespace gpu {
namespace {

// M is the type in memory, R that of the register: a word or a pair. A 16-bit register keeps the
// bits of `narrow`.
template <class M, class R, bool FULL>
void load_element(const Warp &w, uint32_t to, const Addresses &from, uint32_t offset, R narrow) {
    if (to == NO_OPERAND) return;
    R *d = w.at<R>(to);
    for (int l = 0; l < LANES; ++l) {
        if (!FULL && !(w.active >> l & 1)) continue;
        M value;
        memcpy(&value, reinterpret_cast<const char *>(from.of[l]) + offset, sizeof value);
        d[l] = R(value) & narrow;
    }
}

// COUNT elements per lane, lanes side by side.
template <class M, class R, int COUNT>
void load_row(const Warp &w, const Instruction &i, const M *row, R narrow) {
    for (int k = 0; k < COUNT; ++k) {
        if (i.more[k] == NO_OPERAND) continue;
        write_lanes<true>(w.at<R>(i.more[k]), ALL,
                          [&](int l) { return R(R(row[l * COUNT + k]) & narrow); });
    }
}
template <class M, class R>
void load_rows(const Warp &w, const Instruction &i, const M *row, R narrow) {
    switch (i.count) {
    case 1:
        return load_row<M, R, 1>(w, i, row, narrow);
    case 2:
        return load_row<M, R, 2>(w, i, row, narrow);
    case 4:
        return load_row<M, R, 4>(w, i, row, narrow);
    default:
        return load_row<M, R, 8>(w, i, row, narrow);
    }
}

template <class M, class R, bool FULL> const Instruction *load(Warp &w, const Instruction &i) {
    Addresses addresses = addresses_of(w, i);
    const uint32_t bytes = uint32_t(sizeof(M)) * i.count;
    check_access(w, i, i.space, addresses, bytes, bytes, Access::read);
    const R narrow = i.b == NARROW ? R(0xffff) : R(-1);
    const M *first = reinterpret_cast<const M *>(addresses.of[0]);
    if (FULL && addresses.shape == Shape::row) {
        load_rows<M, R>(w, i, first, narrow);
    } else if (FULL && addresses.shape == Shape::same) {
        for (uint32_t k = 0; k < i.count; ++k) {
            const R value = R(R(first[k]) & narrow);
            if (i.more[k] != NO_OPERAND)
                write_lanes<true>(w.at<R>(i.more[k]), ALL, [&](int) { return value; });
        }
    } else {
        for (uint32_t k = 0; k < i.count; ++k)
            load_element<M, R, FULL>(w, i.more[k], addresses, k * uint32_t(sizeof(M)), narrow);
    }
    return &i + 1;
}

// Lanes of one instruction may write the same value to the same place of shared memory.
template <class M, class R>
void check_overwritten(const Warp &w, const Instruction &i, const R *a, const Addresses &addresses,
                       uint32_t offset) {
    for (uint32_t rest = w.overwritten; rest; rest &= rest - 1) {
        const int lane = lowest(rest);
        const char *to = reinterpret_cast<const char *>(addresses.of[lane]) + offset;
        const M value = M(a[lane]);
        if (memcmp(to, &value, sizeof value) != 0)
            w.block->shared.report_overwritten(w, i, lane, to);
    }
}

template <class M, class R, bool FULL> const Instruction *store(Warp &w, const Instruction &i) {
    Addresses addresses = addresses_of(w, i);
    const uint32_t bytes = uint32_t(sizeof(M)) * i.count;
    check_access(w, i, i.space, addresses, bytes, bytes, Access::write);
    if (FULL && addresses.shape == Shape::row && !w.overwrites) {
        for (uint32_t k = 0; k < i.count; ++k) {
            const R *a = w.at<R>(i.more[k]);
            M *row = reinterpret_cast<M *>(addresses.of[0]) + k;
            for (int l = 0; l < LANES; ++l) row[uint32_t(l) * i.count] = M(a[l]);
        }
        return &i + 1;
    }
    for (uint32_t k = 0; k < i.count; ++k) {
        const R *a = w.at<R>(i.more[k]);
        for (int l = 0; l < LANES; ++l) {
            if (!FULL && !(w.active >> l & 1)) continue;
            const M value = M(a[l]);
            char *to = reinterpret_cast<char *>(addresses.of[l]) + k * sizeof(M);
            if ((w.overwrites >> l & 1) && memcmp(to, &value, sizeof value) != 0)
                report_overwrite(w, l, i, addresses.of[l], bytes);
            memcpy(to, &value, sizeof value);
        }
        if (w.overwritten) check_overwritten<M>(w, i, a, addresses, k * uint32_t(sizeof(M)));
    }
    w.overwrites = w.overwritten = 0;
    return &i + 1;
}

template <bool LOAD, class M, class R> Handlers mover() {
    if constexpr (LOAD)
        return {load<M, R, true>, load<M, R, false>};
    else
        return {store<M, R, true>, store<M, R, false>};
}

template <bool LOAD, class R> Handlers mover_of(Selection &s, Type type) {
    switch (type) {
    case Type::b8:
    case Type::u8:
        return mover<LOAD, uint8_t, R>();
    case Type::s8:
        return mover<LOAD, int8_t, R>();
    case Type::b16:
    case Type::u16:
    case Type::f16:
    case Type::bf16:
        return mover<LOAD, uint16_t, R>();
    case Type::s16:
        return mover<LOAD, int16_t, R>();
    case Type::b32:
    case Type::u32:
    case Type::f32:
    case Type::f16x2:
    case Type::bf16x2:
        return mover<LOAD, uint32_t, R>();
    case Type::s32:
        return mover<LOAD, int32_t, R>();
    case Type::b64:
    case Type::u64:
    case Type::s64:
    case Type::f64:
        if constexpr (sizeof(R) == 8)
            return mover<LOAD, uint64_t, R>();
        else
            s.refuse("its register is narrower than its type");
    default:
        s.refuse(std::string("it does not take the type .") + name_of(type));
    }
}

Space take_space(Selection &s) {
    const int found = s.take_one({"global", "const", "shared", "shared::cta", "local", "param",
                                  "param::entry", "param::func"});
    constexpr Space spaces[] = {Space::global,    Space::constant, Space::shared,
                                Space::shared,    Space::local,    Space::parameter,
                                Space::parameter, Space::parameter};
    return found < 0 ? Space::generic : spaces[found];
}

// Modifiers of caching and of memory order: the machine has no caches, and runs a warp's accesses
// in order.
void take_hints(Selection &s) {
    if (s.take_one({"volatile", "relaxed", "acquire", "release", "mmio"}) >= 0) s.strong_access();
    s.take("weak");
    s.take_one({"cta", "cluster", "gpu", "sys"});
    s.take("nc");
    s.take_one({"ca", "cg", "cs", "lu", "cv", "wb", "wt"});
    s.take_one({"L1::evict_normal", "L1::evict_unchanged", "L1::evict_first", "L1::evict_last",
                "L1::no_allocate"});
    s.take_one({"L2::evict_normal", "L2::evict_first", "L2::evict_last"});
    s.take_one({"L2::64B", "L2::128B", "L2::256B"});
    s.take("L2::cache_hint");
}

uint32_t take_vector(Selection &s) {
    const int vector = s.take_one({"v2", "v4", "v8"});
    return vector < 0 ? 1 : 2u << vector;
}

// A kernel's parameters are common values: no memory is read.
template <class R, bool FULL> const Instruction *load_parameter(Warp &w, const Instruction &i) {
    for (uint32_t k = 0; k < i.count; ++k) {
        if (i.more[2 * k] == NO_OPERAND) continue;
        const R *a = w.at<R>(i.more[2 * k + 1]);
        write_lanes<FULL>(w.at<R>(i.more[2 * k]), w.active, [&](int l) { return a[l]; });
    }
    return &i + 1;
}

template <bool LOAD> void access(Selection &s) {
    Instruction &i = s.instruction;
    take_hints(s);
    i.space = take_space(s);
    i.count = uint8_t(take_vector(s));
    const Type type = s.take_type();
    const Operand &values = s.operand(LOAD ? 0 : 1);
    const size_t address = LOAD ? 1 : 0;
    const bool vector = values.kind == Operand::vector;
    if (vector ? values.parts.size() != i.count : i.count != 1)
        s.refuse("it has " + std::to_string(values.parts.size()) + " registers for " +
                 std::to_string(i.count) + " elements");
    // Registers may be wider than the type, and are all alike.
    Type held = s.declared(vector ? values.parts[0] : values);
    if (held == Type::none) held = bytes_of(type) <= 4 ? Type::b32 : Type::b64;
    const bool pair = width_of(held) == Width::pair;
    if (i.space == Space::parameter && s.is_parameter(s.operand(address))) {
        for (uint32_t k = 0; k < i.count; ++k) {
            s.more_result(vector ? values.parts[k] : values, width_of(held));
            s.more_parameter(s.operand(address), k * bytes_of(type), type, held);
        }
        if (pair)
            s.run({load_parameter<uint64_t, true>, load_parameter<uint64_t, false>});
        else
            s.run({load_parameter<uint32_t, true>, load_parameter<uint32_t, false>});
        return;
    }
    if (i.space == Space::parameter)
        i.space = s.is_local(s.operand(address)) ? Space::local : Space::parameter;
    s.address(address);
    for (uint32_t k = 0; k < i.count; ++k) {
        if (LOAD)
            s.more_result(vector ? values.parts[k] : values, width_of(held));
        else
            s.more_source(vector ? values.parts[k] : values, held);
    }
    if (LOAD) i.needed = uint8_t(i.count * bytes_of(type));
    if (i.space == Space::shared) s.shared_access(bytes_of(type));
    if (i.space == Space::generic) s.shared_access(bytes_of(type));
    if (bytes_of(held) == 2) i.b = NARROW;
    s.run(pair ? mover_of<LOAD, uint64_t>(s, type) : mover_of<LOAD, uint32_t>(s, type));
}

const Instruction *nothing(Warp &, const Instruction &i) { return &i + 1; }

// Hints to the caches.
void prefetch(Selection &s) {
    take_space(s);
    s.take_one({"L1", "L2", "L2::evict_last", "L2::evict_normal"});
    s.run({nothing, nothing});
}
void hint(Selection &s) {
    while (const std::string *modifier = s.next()) s.take(*modifier);
    s.run({nothing, nothing});
}

// From a call: a variable of the caller to one of the callee, or back.
const Instruction *copy_parameter(Warp &w, const Instruction &i) {
    const uint32_t size = w.block->running.program.local_bytes;
    const uint32_t to = *w.at<uint32_t>(i.a), from = *w.at<uint32_t>(i.b);
    for (uint32_t rest = w.active; rest; rest &= rest - 1) {
        char *own = w.local + uint64_t(lowest(rest)) * size;
        memcpy(own + to, own + from, size_t(i.immediate));
    }
    return &i + 1;
}
void select_copy_parameter(Selection &s) {
    Operand to = s.operand(0);
    s.instruction.immediate = int64_t(to.bits);
    to.bits = 0;
    s.source(&Instruction::a, to, Type::b32);
    s.source(&Instruction::b, 1, Type::b32);
    s.run({copy_parameter, copy_parameter});
}

}  // namespace

void add_memory(Selectors &s) {
    s["ld"] = access<true>;
    s["ldu"] = access<true>;
    s["st"] = access<false>;
    s["prefetch"] = prefetch;
    s["prefetchu"] = prefetch;
    s["applypriority"] = hint;
    s["discard"] = hint;
    s["createpolicy"] = hint;
    s["copy parameter"] = select_copy_parameter;
}

}  // namespace gpu
