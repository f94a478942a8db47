// The bytes of a SIMD register on `cpu`: the widest of the instruction set.
#pragma once

#if defined(__AVX512F__)
#define REGISTER_BYTES 64
#elif defined(__AVX__)
#define REGISTER_BYTES 32
#else
#define REGISTER_BYTES 16  // SSE2's and NEON's
#endif
