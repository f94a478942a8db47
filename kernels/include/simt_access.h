// The `simt` runtime's check of every load and store.
//
// Kernels are compiled with -fsanitize=thread, which makes the compiler call __tsan_read4(address)
// and the like. They are ours here, not the sanitizer's:
//
//   global memory   must lie in an array that the launch was given
//   shared memory   (the library's static variables and the dynamic block) must be written before
//                   it is read; and between two barriers a byte that one lane writes must not be
//                   touched by another, unless a __syncwarp of their warp lies between; nor may
//                   it be touched while an asynchronous copy is on its way to it
//   the stack       must be the lane's own
#pragma once

#include "simt_machine.h"

#include <link.h>
#include <string.h>

#include <algorithm>

namespace simt {
namespace {

// Finds where the library that holds a code address has its variables and constants.
void find_segments(const void *code_address) {
    struct Search {
        const char *address;
        Machine *m;
    } search{static_cast<const char *>(code_address), machine};
    dl_iterate_phdr(
        [](dl_phdr_info *info, size_t, void *data) {
            Search &s = *static_cast<Search *>(data);
            const char *base = reinterpret_cast<const char *>(info->dlpi_addr);
            bool mine = false;
            for (int i = 0; i < info->dlpi_phnum; ++i) {
                const auto &p = info->dlpi_phdr[i];
                const Range range{base + p.p_vaddr, base + p.p_vaddr + p.p_memsz};
                mine = mine || (p.p_type == PT_LOAD && range.has(s.address, 1));
            }
            if (!mine) return 0;
            s.m->base = base;
            for (int i = 0; i < info->dlpi_phnum; ++i) {
                const auto &p = info->dlpi_phdr[i];
                if (p.p_type != PT_LOAD) continue;
                const Range range{base + p.p_vaddr, base + p.p_vaddr + p.p_memsz};
                if (p.p_flags & PF_W)
                    s.m->statics = range;
                else
                    s.m->constants.push_back(range);
            }
            return 1;
        },
        &search);
}

std::string describe(const char *address, size_t size, bool write, const void *pc) {
    return where() + ", lane " + std::to_string(registers.thread.x) + ": " +
           (write ? "write" : "read") + " of " + std::to_string(size) + " bytes at " + code(pc);
}

void check_shared(Byte *bytes, const char *address, size_t size, bool write, const void *pc) {
    Machine &m = *machine;
    const int lane = m.running->lane;
    const unsigned warp_epoch = m.lanes[lane].warp_epoch;
    const auto apart = [&](int other, unsigned then_epoch, unsigned then_warp_epoch) {
        if (then_epoch != m.epoch || other == lane || other == -1) return true;
        return other >= 0 && other / int(WARP) == lane / int(WARP) && then_warp_epoch != warp_epoch;
    };
    for (size_t i = 0; i < size; ++i) {
        Byte &b = bytes[i];
        if (b.copied_in == m.block_serial)
            return fail(describe(address, size, write, pc) +
                        " of shared memory that a copy begun at " + code(b.write_pc) +
                        " is on its way to: its lane has not waited for it");
        const bool written = b.block == m.block_serial;
        if (!write && !written)
            return fail(describe(address, size, write, pc) +
                        " of shared memory that no lane of the block has written");
        if (written && !apart(b.writer, b.write_epoch, b.write_warp_epoch))
            return fail(describe(address, size, write, pc) + " races in shared memory with lane " +
                        std::to_string(b.writer) + ", which wrote it at " + code(b.write_pc) +
                        " since the last barrier");
        if (write && b.read_epoch == m.epoch && !apart(b.reader, b.read_epoch, b.read_warp_epoch))
            return fail(describe(address, size, write, pc) + " races in shared memory with " +
                        (b.reader == MANY ? "several lanes" : "lane " + std::to_string(b.reader)) +
                        ", which read it at " + code(b.read_pc) + " since the last barrier");
        if (write) {
            b.block = m.block_serial;
            b.writer = lane, b.write_epoch = m.epoch, b.write_warp_epoch = warp_epoch;
            b.write_pc = pc;
        } else {
            const bool first = b.read_epoch != m.epoch || b.reader == lane || b.reader == -1;
            b.reader = first ? lane : MANY;
            b.read_epoch = m.epoch, b.read_warp_epoch = warp_epoch;
            b.read_pc = pc;
        }
    }
}

// What is known of shared memory from an address on; null if it is not shared memory.
Byte *shared_bytes(const char *address, size_t size) {
    Machine &m = *machine;
    if (m.statics.has(address, size)) return &m.static_bytes[address - m.statics.begin];
    const char *dynamic = m.dynamic.data();
    if (Range{dynamic, dynamic + m.dynamic.size()}.has(address, size))
        return &m.dynamic_bytes[address - dynamic];
    return nullptr;
}

void check(const void *where_to, size_t size, bool write, const void *pc) {
    if (!machine || !machine->running) return;
    Machine &m = *machine;
    const long long offset = static_cast<const char *>(pc) - m.base;
    if (m.launch->visited && offset < m.launch->visited_bytes) m.launch->visited[offset] = 1;
    const char *address = static_cast<const char *>(where_to);
    const Fiber &fiber = *m.running;
    if (Range{fiber.stack, fiber.stack + STACK_BYTES}.has(address, size)) return;
    for (int i = 0; i < m.launch->arguments; ++i) {
        const Argument &a = m.launch->argument[i];
        if (Range{a.begin, a.begin + a.bytes}.has(address, size)) return;
    }
    if (m.statics.has(address, size)) {
        for (size_t i = 0; i < size; ++i) m.used.insert(address + i);
        if (m.used.size() + m.launch->shared_bytes >
            std::max(DEFAULT_SHARED_BYTES, m.launch->shared_bytes))
            return fail(where() + ": uses more than 48 KiB of shared memory at " + code(pc));
    }
    if (Byte *bytes = shared_bytes(address, size))
        return check_shared(bytes, address, size, write, pc);
    const char *state = reinterpret_cast<const char *>(&registers);
    if (Range{state, state + sizeof registers}.has(address, size)) return;
    for (const Range &range : m.constants)
        if (!write && range.has(address, size)) return;
    std::string nearest = "outside every array of the launch";
    long long distance = 1 << 16;
    for (int i = 0; i < m.launch->arguments; ++i) {
        const Argument &a = m.launch->argument[i];
        const long long past = address + size - (a.begin + a.bytes), before = a.begin - address;
        const long long off = past > 0 ? past : before;
        if (off >= distance) continue;
        distance = off;
        nearest = std::to_string(off) + " bytes " +
                  (past > 0 ? "past the end" : "before the start") + " of `" + a.name + "` (" +
                  std::to_string(a.bytes) + " bytes)";
    }
    fail(describe(address, size, write, pc) + " is out of bounds, " + nearest);
}

}  // namespace
}  // namespace simt

// ---- what -fsanitize=thread makes a kernel call ------------------------------------------------

#define PC __builtin_return_address(0)
#define ACCESS(size)                                                               \
    void __tsan_read##size(void *p) { simt::check(p, size, false, PC); }           \
    void __tsan_write##size(void *p) { simt::check(p, size, true, PC); }           \
    void __tsan_unaligned_read##size(void *p) { simt::check(p, size, false, PC); } \
    void __tsan_unaligned_write##size(void *p) { simt::check(p, size, true, PC); } \
    void __tsan_volatile_read##size(void *p) { simt::check(p, size, false, PC); }  \
    void __tsan_volatile_write##size(void *p) { simt::check(p, size, true, PC); }

extern "C" {
ACCESS(1)
ACCESS(2)
ACCESS(4)
ACCESS(8)
ACCESS(16)
void __tsan_read_range(void *p, size_t size) { simt::check(p, size, false, PC); }
void __tsan_write_range(void *p, size_t size) { simt::check(p, size, true, PC); }
void __tsan_init() {}
void __tsan_func_entry(void *) {}
void __tsan_func_exit() {}
void *__tsan_memcpy(void *to, const void *from, size_t size) {
    simt::check(from, size, false, PC);
    simt::check(to, size, true, PC);
    return memcpy(to, from, size);
}
void *__tsan_memset(void *to, int value, size_t size) {
    simt::check(to, size, true, PC);
    return memset(to, value, size);
}
}
