// What the machine throws.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

namespace gpu {

// PTX that cannot run: one sentence that names the instruction and its line.
struct Error : std::runtime_error { using std::runtime_error::runtime_error; };

enum class FaultKind {
    out_of_bounds,  // an address outside every array of its memory
    misaligned,     // an address that the access's size does not divide
    host_pointer,   // an address of the host
    unwritten,      // a read of uninitialised memory
    race,           // two unordered accesses, one of them a write
    barrier,        // a barrier or warp operation that some thread never reaches
    lanes,          // a warp operation that reads from a lane outside its mask
    early_read,     // data of an asynchronous copy used before its wait
    trap,           // a trap instruction, such as that of a failed assert
};

// A kernel's fault. what() is the whole report in one sentence.
struct Fault : std::runtime_error {
    Fault(FaultKind kind, const std::string &report) : std::runtime_error(report), kind(kind) {}

    FaultKind kind;
};

}  // namespace gpu
