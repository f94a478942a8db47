// What an access to shared memory takes of its 32 banks of 4 bytes.
#pragma once

#include <cstdint>

namespace gpu {

struct Wavefronts { uint32_t taken, conflicts; };

// An access by the lanes of a mask to `bytes` each, at offsets in shared memory.
//
// Up to 4 bytes a lane, the warp is served at once; 8 bytes by halves, 16 by quarters of a warp.
// Each takes as many wavefronts as the bank with most different words has words. Halves are served
// together where all lanes have the address of their neighbour, or of the one after it, and two
// quarters alike: NVIDIA's forum, "Unexpected shared memory bank conflict".
Wavefronts wavefronts(const uint64_t *offsets, uint32_t lanes, uint32_t bytes);

// The fewest wavefronts that may be due to an access, in sixteenths. The assembler merges accesses
// to neighbouring addresses, up to 16 bytes a lane at a multiple of their size, where this one has
// the same place in all lanes: those that the wider one is made of share its wavefronts.
uint32_t least_sixteenths(const uint64_t *offsets, uint32_t lanes, uint32_t bytes);

// An atomic operation: lanes with one word go one after the other.
Wavefronts atomic_wavefronts(const uint64_t *offsets, uint32_t lanes, uint32_t bytes);

}  // namespace gpu
