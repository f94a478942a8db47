// Tensor-core products of one warp: d (16 x 8) += a (16 x K) b (K x 8), sums in float32.
//
// Fragments are PTX's (PTX ISA, "Matrix fragments for mma.m16n8k16", "... for mma.m16n8k8"). A
// register holds PER neighbours along k, the lower index in the lower half. Lane l holds, with
// g = l / 4 and t = l % 4,
//
//   a[r]        row g + r % 2 * 8,  k from (t + r / 2 * 4) * PER on
//   b[r]        column g,           k from (t + r * 4) * PER on
//   d[0], d[1]  row g,              columns 2t, 2t + 1
//   d[2], d[3]  row g + 8,          columns 2t, 2t + 1
//
// Every lane of the warp must call mma(). It needs sm_80, or sm_75 for Fp16; `cpu` does not have
// it, since its blocks have one thread.
#pragma once

#include "dialect/dialect.cuh"

struct Fp16 { static constexpr int K = 16, PER = 2; };  // IEEE half precision
struct Bf16 { static constexpr int K = 16, PER = 2; };  // the upper half of a float
struct Tf32 { static constexpr int K = 8, PER = 1; };   // a float with a fraction of 10 bits

template <typename E>
__device__ inline void mma(float (&d)[4], const uint32 (&a)[4], const uint32 (&b)[2]) {
    static_assert(sizeof(E) == 0, "bf16 and tf32 products need sm_80, fp16 products sm_75");
}

#define MMA(E, text)                                                                         \
    template <>                                                                              \
    __device__ inline void mma<E>(float (&d)[4], const uint32(&a)[4], const uint32(&b)[2]) { \
        asm volatile(text                                                                    \
                     : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                        \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));    \
    }
#define MMA_TEXT(shape, type, a, b)                                                               \
    "mma.sync.aligned." shape ".row.col.f32." type "." type ".f32 {%0, %1, %2, %3}, {" a "}, {" b \
    "}, {%0, %1, %2, %3};"

#if __CUDA_ARCH__ >= 800
MMA(Fp16, MMA_TEXT("m16n8k16", "f16", "%4, %5, %6, %7", "%8, %9"))
MMA(Bf16, MMA_TEXT("m16n8k16", "bf16", "%4, %5, %6, %7", "%8, %9"))
MMA(Tf32, MMA_TEXT("m16n8k8", "tf32", "%4, %5, %6, %7", "%8, %9"))
#elif __CUDA_ARCH__ >= 750
// sm_75 multiplies half as many k at once: the lower half, then the upper.
MMA(Fp16, MMA_TEXT("m16n8k8", "f16", "%4, %5", "%8") MMA_TEXT("m16n8k8", "f16", "%6, %7", "%9"))
#endif
#undef MMA
#undef MMA_TEXT

// ---- fragments from shared memory --------------------------------------------------------------

// Four matrices of 8 x 8 elements of 16 bits, each row of 16 bytes: lane l gives the address of row
// l % 8 of matrix l / 8, and gets elements 2t and 2t + 1 of row g of each.
__device__ inline void load_matrices(uint32 (&to)[4], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(uint32(__cvta_generic_to_shared(row)))
                 : "memory");
}

// The same of the transposed matrices: elements 2t and 2t + 1 of column g.
__device__ inline void load_transposed(uint32 (&to)[4], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(uint32(__cvta_generic_to_shared(row)))
                 : "memory");
}

// ---- rounding ----------------------------------------------------------------------------------

// Two floats (for Tf32, the lower one alone) rounded to nearest, in one register. Ties go to even,
// for Tf32 away from zero. For Fp16, numbers beyond the largest become infinite.
template <typename E> __device__ inline uint32 rounded(float lower, float upper);

template <> __device__ inline uint32 rounded<Fp16>(float lower, float upper) {
    uint32 bits;
#if __CUDA_ARCH__ >= 800
    asm("cvt.rn.f16x2.f32 %0, %2, %1;" : "=r"(bits) : "f"(lower), "f"(upper));
#else
    asm("{ .reg .b16 l, u; cvt.rn.f16.f32 l, %1; cvt.rn.f16.f32 u, %2; mov.b32 %0, {l, u}; }"
        : "=r"(bits)
        : "f"(lower), "f"(upper));
#endif
    return bits;
}
template <> __device__ inline uint32 rounded<Bf16>(float lower, float upper) {
    uint32 bits;
    asm("cvt.rn.bf16x2.f32 %0, %2, %1;" : "=r"(bits) : "f"(lower), "f"(upper));
    return bits;
}
template <> __device__ inline uint32 rounded<Tf32>(float lower, float) {
    uint32 bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(lower));
    return bits;
}
