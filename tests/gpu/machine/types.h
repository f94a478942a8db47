// PTX's types.
#pragma once

#include <cstdint>
#include <string_view>

namespace gpu {

enum class Type : uint8_t {
    none,
    pred,
    b8,
    b16,
    b32,
    b64,
    b128,
    u8,
    u16,
    u32,
    u64,
    s8,
    s16,
    s32,
    s64,
    f16,
    f16x2,
    bf16,
    bf16x2,
    tf32,
    f32,
    f64,
    e4m3x2,
    e5m2x2,
    u16x2,
    s16x2,
};

Type type_named(std::string_view name);  // Type::none if it is no type
const char *name_of(Type type);
uint32_t bytes_of(Type type);  // in memory

// What a register of a type takes: one bit per lane, or 4, or 8 bytes per lane.
enum class Width : uint8_t { bit, word, pair };
Width width_of(Type type);

}  // namespace gpu
