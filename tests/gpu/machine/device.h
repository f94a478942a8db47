// The limits of one GPU model.
#pragma once

#include <cstddef>
#include <cstdint>

namespace gpu {

struct Device {
    const char *name;
    int major, minor;  // compute capability
    int multiprocessors;
    int threads_per_multiprocessor;
    int blocks_per_multiprocessor;
    int registers_per_multiprocessor;  // of 32 bits
    int registers_per_block;           // of 32 bits
    size_t shared_per_multiprocessor;  // bytes
    size_t shared_per_block;           // bytes, without opting in
    size_t shared_per_block_optin;     // bytes, with it
    size_t shared_reserved_per_block;  // bytes that the system takes
    size_t memory;                     // bytes of DRAM
    size_t l2_bytes;
    int clock_khz;  // boost
    int memory_clock_khz;
    int memory_bus_bits;

    static constexpr int warp = 32;
    static constexpr int threads_per_block = 1024;
};

}  // namespace gpu
