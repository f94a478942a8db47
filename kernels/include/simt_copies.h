// Asynchronous copies on `simt`: each arrives when its lane waits for it, as late as it can.
#pragma once

#include "simt_access.h"

namespace simt {

void begin_copy(void *to, const void *from, int bytes, int valid, const void *pc) {
    char *address = static_cast<char *>(to);
    const auto fault = [&](const char *problem) {
        fail(where() + ", lane " + std::to_string(registers.thread.x) + ": asynchronous copy of " +
             std::to_string(bytes) + " bytes at " + code(pc) + problem);
    };
    Byte *there = shared_bytes(address, bytes);
    if (!there) fault(" goes elsewhere than to shared memory");
    if (size_t(to) % bytes || size_t(from) % bytes) fault(" has an address that is not aligned");
    if (valid < 0 || valid > bytes) fault(" reads more bytes than it copies");
    if (valid) check(from, valid, false, pc);
    check(to, bytes, true, pc);
    for (int i = 0; i < bytes; ++i) there[i].copied_in = machine->block_serial;
    Lane &lane = machine->lanes[machine->running->lane];
    lane.copies.push_back(
        {address, static_cast<const char *>(from), bytes, valid, lane.groups, pc});
}

void commit_copies() { ++machine->lanes[machine->running->lane].groups; }

void wait_copies(unsigned groups) {
    Lane &lane = machine->lanes[machine->running->lane];
    size_t kept = 0;
    for (const Copy copy : lane.copies) {
        if (copy.group + groups >= lane.groups) {
            lane.copies[kept++] = copy;
            continue;
        }
        Byte *there = shared_bytes(copy.to, copy.bytes);
        for (int i = 0; i < copy.bytes; ++i) there[i].copied_in = 0;
        check(copy.to, copy.bytes, true, copy.pc);
        memcpy(copy.to, copy.from, copy.valid);
        memset(copy.to + copy.valid, 0, copy.bytes - copy.valid);
    }
    lane.copies.resize(kept);
}

}  // namespace simt
