#include "types.h"

namespace gpu {
namespace {

struct Known {
    const char *name;
    uint32_t bytes;
};

constexpr Known KNOWN[] = {
    {"", 0},       {"pred", 1},  {"b8", 1},  {"b16", 2}, {"b32", 4},    {"b64", 8},
    {"b128", 16},  {"u8", 1},    {"u16", 2}, {"u32", 4}, {"u64", 8},    {"s8", 1},
    {"s16", 2},    {"s32", 4},   {"s64", 8}, {"f16", 2}, {"f16x2", 4},  {"bf16", 2},
    {"bf16x2", 4}, {"tf32", 4},  {"f32", 4}, {"f64", 8}, {"e4m3x2", 2}, {"e5m2x2", 2},
    {"u16x2", 4},  {"s16x2", 4},
};
constexpr int COUNT = sizeof KNOWN / sizeof *KNOWN;

}  // namespace

Type type_named(std::string_view name) {
    for (int i = 1; i < COUNT; ++i)
        if (name == KNOWN[i].name) return Type(i);
    return Type::none;
}

const char *name_of(Type type) { return KNOWN[int(type)].name; }

uint32_t bytes_of(Type type) { return KNOWN[int(type)].bytes; }

Width width_of(Type type) {
    if (type == Type::pred) return Width::bit;
    return bytes_of(type) <= 4 ? Width::word : Width::pair;
}

}  // namespace gpu
