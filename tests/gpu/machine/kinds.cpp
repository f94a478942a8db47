#include "kinds.h"

#include <algorithm>
#include <initializer_list>
#include <string_view>

namespace gpu {
namespace {

uint8_t whole(bool lasts) { return lasts ? SIXTEENTHS : 0; }

bool is_one_of(const std::string &word, std::initializer_list<std::string_view> words) {
    return std::find(words.begin(), words.end(), word) != words.end();
}

bool has(const Statement &s, std::initializer_list<std::string_view> words) {
    return std::any_of(s.modifiers.begin(), s.modifiers.end(),
                       [&](const std::string &modifier) { return is_one_of(modifier, words); });
}

// The last type is that of the sources.
Type type_of(const Statement &s) {
    Type type = Type::none;
    for (const std::string &modifier : s.modifiers)
        if (type_named(modifier) != Type::none) type = type_named(modifier);
    return type;
}

bool is_half(Type type) {
    return type == Type::f16 || type == Type::f16x2 || type == Type::bf16 || type == Type::bf16x2;
}

void arithmetic(const Statement &s, Type type, Kind &kind) {
    const bool fma = is_one_of(s.opcode, {"fma", "mad"}), mul = s.opcode == "mul";
    const bool add = is_one_of(s.opcode, {"add", "sub"});
    const bool plain = fma || mul || add;
    const uint32_t operations = fma ? 2 : plain ? 1 : 0;
    if (type == Type::f32) {
        kind.figure = fma ? FMA32 : mul ? MUL32 : add ? ADD32 : OTHER32;
        kind.operations = FLOAT_OPERATIONS;
    } else if (type == Type::f64) {
        kind.figure = plain ? FMA64 : OTHER64;
        kind.operations = DOUBLE_OPERATIONS;
    } else if (is_half(type)) {
        kind.figure = HALF;
        kind.operations = HALF_OPERATIONS;
    } else {
        const bool division = s.opcode == "div" || s.opcode == "rem";
        kind.figure = !division ? INTEGER : bytes_of(type) == 8 ? DIVISION64 : DIVISION32;
        return;
    }
    kind.operations_per_lane = operations * (bytes_of(type) == 4 && is_half(type) ? 2 : 1);
    kind.lasting = whole(fma);  // an add and a mul may become one
}

void access(const Statement &s, Type type, Kind &kind) {
    const bool load = s.opcode != "st";
    if (has(s, {"param", "param::entry", "param::func"})) {
        kind.figure = MOVE;
        return;
    }
    kind.memory = true;
    uint32_t count = has(s, {"v2"}) ? 2 : has(s, {"v4"}) ? 4 : has(s, {"v8"}) ? 8 : 1;
    kind.bytes = uint8_t(bytes_of(type) * count);
    const bool shared = has(s, {"shared", "shared::cta"});
    // The assembler merges neighbouring accesses to shared memory, up to 16 bytes per lane.
    if (!has(s, {"local"}))
        kind.lasting = uint8_t(shared ? std::min<uint32_t>(kind.bytes, SIXTEENTHS) : SIXTEENTHS);
    kind.uncached = has(s, {"cg", "cv", "volatile", "relaxed", "acquire", "mmio"});
    if (shared)
        kind.figure = load ? LOAD_SHARED : STORE_SHARED;
    else if (has(s, {"local"}))
        kind.figure = load ? LOAD_LOCAL : STORE_LOCAL;
    else
        kind.figure = load ? LOAD_GLOBAL : STORE_GLOBAL;
}

int number_after(const std::string &shape, char letter) {
    const size_t at = shape.find(letter);
    return at == std::string::npos ? 0 : std::atoi(shape.c_str() + at + 1);
}

void matrix(const Statement &s, Kind &kind) {
    kind.lasting = SIXTEENTHS;
    if (s.opcode == "mma") {
        kind.figure = TENSOR;
        kind.operations = TENSOR_OPERATIONS;
        for (const std::string &shape : s.modifiers)
            if (shape.size() > 4 && shape[0] == 'm' && number_after(shape, 'k'))
                kind.operations_per_lane =
                    uint32_t(2 * number_after(shape, 'm') * number_after(shape, 'n') *
                             number_after(shape, 'k'));
    } else if (s.opcode == "movmatrix") {
        kind.figure = WARP;
    } else {
        kind.figure = MATRIX_LOAD;
        kind.memory = true;
        kind.writes = s.opcode == "stmatrix";
        kind.bytes = uint8_t(has(s, {"x4"}) ? 4 : has(s, {"x2"}) ? 2 : 1);
    }
}

Kind kind_of(const Statement &s) {
    Kind kind;
    kind.counted = true;
    const Type type = type_of(s);
    const std::string &op = s.opcode;
    if (is_one_of(op, {"mma", "ldmatrix", "stmatrix", "movmatrix"})) {
        matrix(s, kind);
    } else if (is_one_of(op, {"ld", "ldu", "st"})) {
        access(s, type, kind);
    } else if (is_one_of(op, {"atom", "red"})) {
        kind.figure = has(s, {"shared", "shared::cta"}) ? ATOMIC_SHARED : ATOMIC_GLOBAL;
        kind.memory = true;
        kind.lasting = SIXTEENTHS;
        kind.bytes = uint8_t(bytes_of(type));
    } else if (op == "cp") {
        const bool copies = !has(s, {"commit_group", "wait_group", "wait_all"});
        kind.figure = copies ? COPY : OTHER;
        kind.memory = copies;
        kind.lasting = whole(copies);
        kind.uncached = has(s, {"cg"});
    } else if (is_one_of(op, {"bar", "barrier"})) {
        kind.figure = has(s, {"warp"}) ? WARP : BARRIER;
        kind.lasting = whole(kind.figure == BARRIER);
    } else if (op == "barrier result") {
        kind.counted = false;  // of the barrier before it
    } else if (is_one_of(op, {"shfl", "vote", "match", "redux", "activemask", "elect"})) {
        kind.figure = WARP;
        kind.lasting = whole(op == "shfl" || op == "redux");
    } else if (is_one_of(op, {"bra", "brx", "ret", "exit", "trap", "brkpt", "call"})) {
        kind.figure = CONTROL;
    } else if (is_one_of(op, {"mov", "cvta", "selp", "slct", "isspacep", "copy parameter"})) {
        kind.figure = MOVE;
    } else if (op == "cvt") {
        kind.figure = CONVERSION;
    } else if (is_one_of(op, {"rcp", "sqrt", "rsqrt", "ex2", "lg2", "sin", "cos", "tanh"}) ||
               (op == "div" && type == Type::f32)) {
        kind.figure = type == Type::f64 ? OTHER64 : SPECIAL;
        kind.lasting = whole(kind.figure == SPECIAL);
        if (kind.lasting) kind.operations = SPECIAL_OPERATIONS, kind.operations_per_lane = 1;
    } else if (is_one_of(op, {"membar", "fence", "prefetch", "prefetchu", "nanosleep", "discard",
                              "applypriority", "createpolicy", "pmevent", "setmaxnreg",
                              "griddepcontrol"})) {
        kind.figure = OTHER;
    } else {
        arithmetic(s, type, kind);
    }
    return kind;
}

}  // namespace

std::vector<Kind> kinds_of(const Program &program) {
    std::vector<Kind> kinds;
    for (const Statement *statement : program.statements)
        kinds.push_back(statement ? kind_of(*statement) : Kind());
    return kinds;
}

std::string tensor_name(const Statement &statement) {
    std::string name;
    for (const std::string &modifier : statement.modifiers)
        if (!is_one_of(modifier, {"sync", "aligned", "row", "col", "satfinite"}))
            name += (name.empty() ? "" : ".") + modifier;
    return name;
}

}  // namespace gpu
