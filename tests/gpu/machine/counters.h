// What a launch did, counted. Nothing is counted unless Launch::counters asks for it.
//
// The figures are those of the PTX, and the same on every run and machine: they depend on neither
// the host's threads nor its clock, as long as the kernel itself does not.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <unordered_map>

namespace gpu {

// The first of these, up to OTHER, are classes of instructions: their figures are warp
// instructions, whatever share of the lanes is active. Requests are warp instructions, too.
enum Figure : uint8_t {
    FMA32,        // of float: fma
    ADD32,        // add, sub
    MUL32,        // mul
    OTHER32,      // min, max, abs, neg, comparisons
    HALF,         // arithmetic of float16 and bfloat16
    FMA64,        // of double: fma, add, sub, mul
    OTHER64,      // and the rest
    INTEGER,      // arithmetic, logic, shifts and comparisons of integers
    DIVISION32,   // div and rem of integers of up to 32 bits
    DIVISION64,   // and of 64
    CONVERSION,   // cvt
    SPECIAL,      // rcp, sqrt, rsqrt, ex2, lg2, sin, cos, tanh, and div of float
    TENSOR,       // mma
    LOAD_GLOBAL,  // of global, constant and generic addresses
    STORE_GLOBAL,
    LOAD_SHARED,
    STORE_SHARED,
    LOAD_LOCAL,
    STORE_LOCAL,
    COPY,         // cp.async
    MATRIX_LOAD,  // ldmatrix, stmatrix
    ATOMIC_GLOBAL,
    ATOMIC_SHARED,
    BARRIER,  // bar, barrier
    WARP,     // shfl, vote, match, redux, movmatrix, bar.warp
    CONTROL,  // branches and ends
    MOVE,     // mov, selp, conversions of addresses, and loads of parameters
    OTHER,

    LASTING,           // those that no assembler can leave out, merge or hoist, adds and muls aside
    ACTIVE_LANES,      // of all warp instructions together
    FLOAT_OPERATIONS,  // of one lane each; an fma is two
    HALF_OPERATIONS,
    DOUBLE_OPERATIONS,
    TENSOR_OPERATIONS,
    SPECIAL_OPERATIONS,

    // Global memory. A sector is 32 bytes; a request moves each sector that it touches once.
    GLOBAL_LOAD_REQUESTS,
    GLOBAL_LOAD_SECTORS,
    GLOBAL_LOAD_BYTES,  // different bytes that each request uses
    UNCACHED_SECTORS,   // those of the loads' that are never in L1: .cg, volatile and so on
    GLOBAL_STORE_REQUESTS,
    GLOBAL_STORE_SECTORS,
    GLOBAL_STORE_BYTES,
    ATOMIC_REQUESTS,
    ATOMIC_SECTORS,

    // Shared memory. A wavefront serves the 32 banks once; what an access takes beyond the
    // wavefronts that its size takes is conflicts.
    SHARED_REQUESTS,
    SHARED_WAVEFRONTS,
    SHARED_CONFLICTS,
    SHARED_LEAST,  // wavefronts, if the assembler merges all neighbouring accesses that it may

    FIGURES
};
constexpr int CLASSES = OTHER + 1;
const char *name_of(Figure figure);
using Figures = std::array<uint64_t, FIGURES>;

// The sectors of global memory that were touched.
class Sectors {
  public:
    // A sector that a block wrote before it read it does not count as read; `block` tells blocks
    // apart.
    void read(uint64_t sector, uint64_t block);
    void write(uint64_t sector, uint64_t block);
    // Adds those of another block or thread of a launch.
    void add(const Sectors &other);
    // Adds those of a later launch: what was written before is not read.
    void follow(const Sectors &later);

    struct Totals { uint64_t read, written, touched; };
    Totals totals() const;

  private:
    static constexpr uint64_t PAGE = 128;  // sectors
    struct Page {
        uint64_t read[2] = {}, written[2] = {}, own[2] = {};  // own: those that `block` wrote
        uint64_t block = ~uint64_t(0);
    };
    Page &page(uint64_t sector, uint64_t block);

    std::unordered_map<uint64_t, Page> pages_;
    uint64_t last_ = ~uint64_t(0);
    Page *last_page_ = nullptr;
};

struct Counters {
    Figures all{};        // of the launch
    Figures least{};      // of each figure, the smallest of any block
    uint64_t blocks = 0;  // that ran
    // Instructions that no assembler can leave out, of the warp that has most of them.
    uint64_t longest_warp = 0;
    std::map<std::string, uint64_t> tensor;  // mma by shape and types: "m16n8k16.f32.bf16.bf16.f32"
    Sectors sectors;

    // Adds what other blocks of the launch did.
    void add(const Counters &others);
};

}  // namespace gpu
