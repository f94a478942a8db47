// Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", 2011),
// a counter-based generator: four words depend on (seed, index, offset) alone, so any thread can
// draw any element, in any order, with the same result.
#pragma once

#include "dialect/dialect.cuh"

// Uniform in [0, 1) with 24 bits.
__device__ inline float uniform(uint32 word) { return (word >> 8) * (1.0f / 16777216.0f); }

struct Random4 {
    uint32 word[4];
    __device__ float uniform(int i) const { return ::uniform(word[i]); }
};

__device__ __forceinline__ Random4 philox(uint64 seed, uint64 index, uint64 offset) {
    uint32 key0 = uint32(seed), key1 = uint32(seed >> 32);
    uint32 w0 = uint32(index), w1 = uint32(index >> 32);
    uint32 w2 = uint32(offset), w3 = uint32(offset >> 32);
    UNROLL(int round = 0; round < 10; ++round) {
        const uint64 a = (uint64)0xD2511F53u * w0, b = (uint64)0xCD9E8D57u * w2;
        w0 = uint32(b >> 32) ^ w1 ^ key0, w1 = uint32(b);
        w2 = uint32(a >> 32) ^ w3 ^ key1, w3 = uint32(a);
        key0 += 0x9E3779B9u;  // the golden ratio and sqrt(3) - 1, Weyl sequences of the key
        key1 += 0xBB67AE85u;
    }
    return {{w0, w1, w2, w3}};
}
