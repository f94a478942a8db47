// How an access to shared memory uses its 32 banks of 4 bytes.
#pragma once

#include <cstdint>

namespace gpu {

struct Wavefronts { uint32_t taken, conflicts; };

// An access by the lanes of a mask to `bytes` each, at offsets in shared memory.
//
// Up to 4 bytes per lane, the warp is served at once; 8 bytes by halves, 16 by quarters of a warp.
// Each part takes as many wavefronts as the busiest bank has different words. Halves are served
// together where all lanes have the address of their neighbour, or of the one after it, and two
// quarters alike: NVIDIA's forum, "Unexpected shared memory bank conflict".
Wavefronts wavefronts(const uint64_t *offsets, uint32_t lanes, uint32_t bytes);

// A lower bound on an access's wavefronts, in sixteenths. The assembler may merge it with accesses
// to neighbouring addresses, to at most 16 bytes per lane, aligned to that size, if its position
// among them is the same in all lanes; the merged accesses share the wavefronts.
uint32_t least_sixteenths(const uint64_t *offsets, uint32_t lanes, uint32_t bytes);

// An atomic operation: lanes with one word go one after the other.
Wavefronts atomic_wavefronts(const uint64_t *offsets, uint32_t lanes, uint32_t bytes);

}  // namespace gpu
