// Tensor-core products of one warp: d (16 x 8) += a (16 x 16) b (16 x 8), sums in float32.
//
// Fragments are PTX's for mma.m16n8k16 (PTX ISA, "Matrix fragments for mma.m16n8k16"). Lane l
// holds, with g = l / 4 and t = l % 4, two 16-bit elements a register, the lower column first:
//
//   a[0]  row g,      columns 2t, 2t + 1        b[0]  rows 2t, 2t + 1,         column g
//   a[1]  row g + 8,  columns 2t, 2t + 1        b[1]  rows 2t + 8, 2t + 9,     column g
//   a[2]  row g,      columns 2t + 8, 2t + 9
//   a[3]  row g + 8,  columns 2t + 8, 2t + 9    d[0], d[1]  row g,      columns 2t, 2t + 1
//                                               d[2], d[3]  row g + 8,  columns 2t, 2t + 1
//
// Every lane of the warp must call it. `cuda` needs sm_80; `simt` computes the same from the same
// fragments; `cpu`, whose blocks have one thread, has no such word.
#pragma once

#include "dialect.cuh"

struct Fp16 {};  // IEEE half precision
struct Bf16 {};  // the upper half of a float

template <typename E>
__device__ inline void mma_m16n8k16(float (&d)[4], const uint32 (&a)[4], const uint32 (&b)[2]);

#if defined(__CUDACC__)

#define MMA_M16N8K16(tag, name)                                                           \
    template <>                                                                           \
    __device__ inline void mma_m16n8k16<tag>(float (&d)[4], const uint32(&a)[4],          \
                                             const uint32(&b)[2]) {                       \
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." name "." name ".f32 "       \
                     "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"    \
                     : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                     \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1])); \
    }
MMA_M16N8K16(Fp16, "f16")
MMA_M16N8K16(Bf16, "bf16")
#undef MMA_M16N8K16

#elif defined(KERNELS_SIMT)

template <typename E> inline float from_bits(uint32 bits);
template <> inline float from_bits<Bf16>(uint32 bits) {
    bits <<= 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}
template <> inline float from_bits<Fp16>(uint32 bits) {
    const int exponent = bits >> 10 & 31, fraction = bits & 1023;
    const float sign = bits >> 15 ? -1.0f : 1.0f;
    if (exponent == 31) return fraction ? not_a_number() : sign * infinity();
    return exponent ? sign * ldexpf(float(1024 + fraction), exponent - 25)
                    : sign * ldexpf(float(fraction), -24);
}

template <typename E>
inline void mma_m16n8k16(float (&d)[4], const uint32 (&a)[4], const uint32 (&b)[2]) {
    const uint32 g = simt::self() / 4, t = simt::self() % 4;
    float left[2][16], right[16][2];  // rows g and g + 8 of a, columns 2t and 2t + 1 of b
    for (int i = 0; i < 16; ++i) {
        // Register i / 4 of a lane in this one's row group; b's of the lanes that hold its columns.
        const uint32 pair = __shfl_sync(0xffffffffu, a[i / 4], g * 4 + i % 4);
        const int row = i / 4 % 2, column = i / 8 * 8 + i % 4 * 2;
        left[row][column] = from_bits<E>(pair & 0xffff);
        left[row][column + 1] = from_bits<E>(pair >> 16);
    }
    for (int i = 0; i < 16; ++i) {
        const int column = i / 8, half = i / 4 % 2;
        const uint32 pair = __shfl_sync(0xffffffffu, b[half], (2 * t + column) * 4 + i % 4);
        const int row = half * 8 + i % 4 * 2;
        right[row][column] = from_bits<E>(pair & 0xffff);
        right[row + 1][column] = from_bits<E>(pair >> 16);
    }
    for (int i = 0; i < 4; ++i)
        for (int k = 0; k < 16; ++k) d[i] += left[i / 2][k] * right[k][i % 2];
}

#endif
