// Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", 2011),
// a counter-based generator: four words are a function of (seed, index, offset) and nothing else,
// so any element can be drawn on any thread, in any order, with the same result.
#pragma once

#include "dialect.cuh"

struct Random4 {
    uint32 word[4];
    // Uniform in [0, 1) with 24 bits.
    __device__ float uniform(int i) const { return (word[i] >> 8) * (1.0f / 16777216.0f); }
};

__device__ inline Random4 philox(uint64 seed, uint64 index, uint64 offset) {
    uint32 key0 = uint32(seed), key1 = uint32(seed >> 32);
    Random4 r{{uint32(index), uint32(index >> 32), uint32(offset), uint32(offset >> 32)}};
    for (int round = 0; round < 10; ++round) {
        const uint64 a = (uint64)0xD2511F53u * r.word[0], b = (uint64)0xCD9E8D57u * r.word[2];
        r = {{uint32(b >> 32) ^ r.word[1] ^ key0, uint32(b), uint32(a >> 32) ^ r.word[3] ^ key1,
              uint32(a)}};
        key0 += 0x9E3779B9u;  // the golden ratio and sqrt(3) - 1, Weyl sequences of the key
        key1 += 0xBB67AE85u;
    }
    return r;
}
