// Tensor cores: mma, and the loads and stores of its fragments, ldmatrix, stmatrix, movmatrix.
//
// Lane l holds, with g = l / 4 and t = l % 4, where a register has PER neighbours along k (PTX ISA,
// "Matrix fragments for mma"; the layouts of all shapes here are this one):
//
//   a[r]        row g + r % 2 * 8 (row g, if there are 8 rows),  k from (t + r / 2 * 4) * PER on
//   b[r]        column g,                                        k from (t + r * 4) * PER on
//   d[0], d[1]  row g,      columns 2t, 2t + 1
//   d[2], d[3]  row g + 8,  columns 2t, 2t + 1
//
// Products are exact and added one after the other, k ascending, in the type of the sums. (On a GPU
// the order and the bits kept between are not defined.)
#include <algorithm>

#include "access.h"
#include "collective.h"
#include "elementwise.h"
#include "floats.h"

namespace gpu {
namespace {

// ---- element types: how many a register holds, and the p-th of them ----------------------------

struct Tf32 {
    using Register = uint32_t;
    using Sum = float;
    static constexpr int PER = 1;
    static float number(uint32_t bits, int) { return bits_as<float>(bits & ~0x1fffu); }
};
template <class N> struct Narrow {
    using Register = uint32_t;
    using Sum = float;
    static constexpr int PER = 2;
    static float number(uint32_t bits, int p) { return wide(N{uint16_t(bits >> 16 * p)}); }
};
struct Double {
    using Register = double;
    using Sum = double;
    static constexpr int PER = 1;
    static double number(double value, int) { return value; }
};
template <class T> struct Byte {
    using Register = uint32_t;
    using Sum = int32_t;
    static constexpr int PER = 4;
    static int32_t number(uint32_t bits, int p) { return T(uint8_t(bits >> 8 * p)); }
};

constexpr int COLUMNS = 8, MOST_ROWS = 16, MOST_K = 32;

// a * b + c in the sums' type.
inline float product_sum(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
inline double product_sum(double a, double b, double c) { return __builtin_fma(a, b, c); }
inline int32_t product_sum(int32_t a, int32_t b, int32_t c) {
    return int32_t(uint32_t(c) + uint32_t(a * b));
}

// d and c as sums, or as pairs of halves.
template <class Sum, bool HALF> struct Accumulators {
    Sum of[MOST_ROWS][COLUMNS];

    void load(const Warp &w, const uint32_t *operands, int rows) {
        each(rows, [&](int l, int row, int column, int r) {
            if constexpr (HALF) {
                const uint32_t pair = w.at<uint32_t>(operands[r / 2])[l];
                of[row][column] = wide(Half{uint16_t(pair >> 16 * (r % 2))});
            } else {
                of[row][column] = w.at<Sum>(operands[r])[l];
            }
        });
    }
    void store(const Warp &w, const uint32_t *operands, int rows) const {
        each(rows, [&](int l, int row, int column, int r) {
            if constexpr (HALF) {
                uint32_t &pair = w.at<uint32_t>(operands[r / 2])[l];
                Half half;
                narrow(of[row][column], half);
                pair = r % 2 ? (pair & 0xffff) | uint32_t(half.bits) << 16 : half.bits;
            } else {
                w.at<Sum>(operands[r])[l] = of[row][column];
            }
        });
    }
    template <class F> static void each(int rows, F f) {
        for (int r = 0; r < rows / 4; ++r)
            for (int l = 0; l < LANES; ++l) f(l, l / 4 + r / 2 * 8, l % 4 * 2 + r % 2, r);
    }
};

// Of an instruction: more holds d, a, b, c; count is k, immediate the number of rows.
template <class A, class B, bool HALF> const Instruction *mma(Warp &w, const Instruction &i) {
    return together(w, i, ALL, [&] {
        using Sum = typename A::Sum;
        const int rows = int(i.immediate), k = i.count;
        const int sums = HALF ? rows / 8 : rows / 4;
        const int left = rows * k / (LANES * A::PER), right = COLUMNS * k / (LANES * B::PER);
        const uint32_t *operands = i.more;
        Sum a[MOST_ROWS][MOST_K], b[MOST_K][COLUMNS];
        for (int r = 0; r < left; ++r) {
            const auto *held = w.at<typename A::Register>(operands[sums + r]);
            const int below = rows == 16 ? r % 2 * 8 : 0, along = rows == 16 ? r / 2 : r;
            for (int l = 0; l < LANES; ++l)
                for (int p = 0; p < A::PER; ++p)
                    a[l / 4 + below][(l % 4 + along * 4) * A::PER + p] = A::number(held[l], p);
        }
        for (int r = 0; r < right; ++r) {
            const auto *held = w.at<typename B::Register>(operands[sums + left + r]);
            for (int l = 0; l < LANES; ++l)
                for (int p = 0; p < B::PER; ++p)
                    b[(l % 4 + r * 4) * B::PER + p][l / 4] = B::number(held[l], p);
        }
        Accumulators<Sum, HALF> d;
        d.load(w, operands + sums + left + right, rows);
        for (int row = 0; row < rows; ++row)
            for (int step = 0; step < k; ++step)
                for (int column = 0; column < COLUMNS; ++column)
                    d.of[row][column] =
                        product_sum(a[row][step], b[step][column], d.of[row][column]);
        d.store(w, operands, rows);
    });
}

struct Shape {
    const char *name;
    int rows, k;
};
constexpr Shape SHAPES[] = {{"m16n8k4", 16, 4},   {"m16n8k8", 16, 8}, {"m16n8k16", 16, 16},
                            {"m16n8k32", 16, 32}, {"m8n8k4", 8, 4},   {"m8n8k16", 8, 16}};

template <bool HALF> Handler floating_mma(Type type) {
    return type == Type::f16 ? mma<Narrow<Half>, Narrow<Half>, HALF>
                             : mma<Narrow<Bfloat>, Narrow<Bfloat>, HALF>;
}
Handler byte_mma(Type a, Type b) {
    using S = Byte<int8_t>;
    using U = Byte<uint8_t>;
    if (a == Type::s8) return b == Type::s8 ? mma<S, S, false> : mma<S, U, false>;
    return b == Type::s8 ? mma<U, S, false> : mma<U, U, false>;
}

void select_mma(Selection &s) {
    if (s.has("sp")) s.refuse("sparse products are not supported");
    s.take("sync"), s.take("aligned");
    const Shape *shape = nullptr;
    for (const Shape &known : SHAPES)
        if (s.take(known.name)) shape = &known;
    if (!shape) s.refuse("its shape is not supported");
    if (!s.take("row") || !s.take("col")) s.refuse("its layout is not supported");
    const Type d = s.take_type(), a = s.take_type(), b = s.take_type(), c = s.take_type();
    if (d != c) s.refuse("its sums are of two types");
    Handler handler = nullptr;
    int per = 0;
    if (a == Type::f16 && shape->rows == 16)
        handler = d == Type::f16 ? floating_mma<true>(a) : floating_mma<false>(a), per = 2;
    else if (a == Type::bf16)
        handler = floating_mma<false>(a), per = 2;
    else if (a == Type::tf32)
        handler = mma<Tf32, Tf32, false>, per = 1;
    else if (a == Type::f64)
        handler = mma<Double, Double, false>, per = 1;
    else if (a == Type::s8 || a == Type::u8)
        handler = byte_mma(a, b), per = 4;
    else
        s.refuse("its types are not supported");
    const Type held = a == Type::f64 ? Type::f64 : Type::b32;
    const size_t sums = size_t(shape->rows / (d == Type::f16 ? 8 : 4));
    const size_t left = size_t(shape->rows * shape->k / (LANES * per));
    const size_t right = size_t(COLUMNS * shape->k / (LANES * per));
    const size_t sizes[] = {sums, left, right, sums};
    for (size_t k = 0; k < 4; ++k) {
        const Operand &o = s.operand(k);
        // A fragment of one register may be written without braces.
        const std::vector<Operand> parts = o.kind == Operand::vector ? o.parts : std::vector{o};
        if (parts.size() != sizes[k] || parts.empty())
            s.refuse("a fragment has " + std::to_string(parts.size()) + " registers, not " +
                     std::to_string(sizes[k]));
        for (const Operand &part : parts) {
            if (k == 0)
                s.more_result(part, width_of(held));
            else
                s.more_source(part, held);
        }
    }
    s.instruction.count = uint8_t(shape->k);
    s.instruction.immediate = shape->rows;
    s.run({handler, handler});
}

// ---- 8 x 8 matrices of 16-bit numbers in shared memory, a row of 16 bytes at each lane's address

constexpr uint32_t ROW_BYTES = 16;

template <bool STORE, bool TRANSPOSED>
const Instruction *move_matrices(Warp &w, const Instruction &i) {
    return together(w, i, ALL, [&] {
        Addresses rows = addresses_of(w, i);
        const uint32_t all = w.active;
        w.active = i.count == 4 ? ALL : (1u << 8 * i.count) - 1;
        check_access(w, i, i.space, rows, ROW_BYTES, ROW_BYTES,
                     STORE ? Access::write : Access::read);
        if (w.overwritten) {
            const int lane = lowest(w.overwritten);
            w.block->shared.report_overwritten(w, i, lane,
                                               reinterpret_cast<const void *>(rows.of[lane]));
        }
        w.active = all;
        for (int m = 0; m < i.count; ++m) {
            const auto element = [&](int row, int column) {
                return reinterpret_cast<uint16_t *>(rows.of[m * 8 + row]) + column;
            };
            uint32_t *held = w.at<uint32_t>(i.more[m]);
            for (int l = 0; l < LANES; ++l) {
                const int row = l / 4, column = l % 4 * 2;
                uint16_t *low = TRANSPOSED ? element(column, row) : element(row, column);
                uint16_t *high = TRANSPOSED ? element(column + 1, row) : element(row, column + 1);
                if (STORE)
                    *low = uint16_t(held[l]), *high = uint16_t(held[l] >> 16);
                else
                    held[l] = *low | uint32_t(*high) << 16;
            }
        }
    });
}

template <bool STORE> void select_matrices(Selection &s) {
    Instruction &i = s.instruction;
    s.take("sync"), s.take("aligned");
    if (!s.take("m8n8")) s.refuse("its shape is not supported");
    const int number = s.take_one({"x1", "x2", "x4"});
    const bool transposed = s.take("trans");
    i.space = s.take_one({"shared", "shared::cta"}) < 0 ? Space::generic : Space::shared;
    if (s.take_type() != Type::b16) s.refuse("its type is not supported");
    i.count = uint8_t(1 << std::max(number, 0));
    const Operand &registers = s.operand(STORE ? 1 : 0);
    s.address(STORE ? 0 : 1);
    s.shared_access(ROW_BYTES);
    const std::vector<Operand> parts =
        registers.kind == Operand::vector ? registers.parts : std::vector{registers};
    if (parts.size() != i.count) s.refuse("it has another number of registers than of matrices");
    for (const Operand &part : parts) {
        if (STORE)
            s.more_source(part, Type::b32);
        else
            s.more_result(part, Width::word);
    }
    const Handler handler = transposed ? move_matrices<STORE, true> : move_matrices<STORE, false>;
    s.run({handler, handler});
}

const Instruction *transpose(Warp &w, const Instruction &i) {
    return together(w, i, ALL, [&] {
        uint32_t held[LANES];
        memcpy(held, w.at<uint32_t>(i.a), sizeof held);
        const auto element = [&](int row, int column) {
            return held[row * 4 + column / 2] >> column % 2 * 16 & 0xffff;
        };
        for (int l = 0; l < LANES; ++l)
            w.at<uint32_t>(i.d)[l] = element(l % 4 * 2, l / 4) | element(l % 4 * 2 + 1, l / 4)
                                                                     << 16;
    });
}
void movmatrix(Selection &s) {
    s.take("sync"), s.take("aligned"), s.take("m8n8");
    if (!s.take("trans")) s.refuse("it is not supported without .trans");
    operands(s, s.take_type() == Type::b16 ? Type::b32 : Type::none, 1);
    s.run({transpose, transpose});
}

}  // namespace

void add_matrix(Selectors &s) {
    s["mma"] = select_mma;
    s["ldmatrix"] = select_matrices<false>;
    s["stmatrix"] = select_matrices<true>;
    s["movmatrix"] = movmatrix;
}

}  // namespace gpu
