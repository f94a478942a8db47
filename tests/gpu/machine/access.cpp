#include "access.h"

#include <algorithm>

#include "races.h"
#include "report.h"

namespace gpu {
namespace {

[[noreturn]] void report_bounds(const Warp &warp, int lane, const Instruction &at, uint64_t address,
                                uint32_t bytes, Access access) {
    const Running &running = warp.block->running;
    const std::string what = attempt(warp, at, bytes, access);
    const std::string where_to = address_of(running, address, bytes);
    if (running.machine.memory.contains(reinterpret_cast<const void *>(address)))
        fault(FaultKind::out_of_bounds, warp, lane, what + " is out of bounds: " + where_to);
    if (address < 4096)
        fault(FaultKind::out_of_bounds, warp, lane,
              what + " is out of bounds: " + where_to + ", a null pointer");
    fault(FaultKind::host_pointer, warp, lane,
          what + " is out of bounds: " + where_to + ", no address of the GPU's memory");
}

Shape shape_of(const Addresses &addresses, uint32_t bytes) {
    uint64_t apart = 0, different = 0;
    for (int l = 0; l < LANES; ++l) {
        apart |= addresses.of[l] ^ (addresses.of[0] + uint64_t(l) * bytes);
        different |= addresses.of[l] ^ addresses.of[0];
    }
    return apart == 0 ? Shape::row : different == 0 ? Shape::same : Shape::scattered;
}

bool is_inside(uint64_t begin, uint64_t bytes, uint64_t room_begin, uint64_t room_end) {
    const uint64_t offset = begin - room_begin, room = room_end - room_begin;
    return (offset <= room) & (bytes <= room - offset);
}

void check_global(Warp &warp, const Instruction &at, Addresses &addresses, uint32_t bytes,
                  Access access) {
    Block &block = *warp.block;
    Memory &memory = block.running.machine.memory;
    Bounds &bounds = block.bounds[at.site];
    const bool together = addresses.shape != Shape::scattered;
    if (access != Access::read && block.running.concurrent && block.running.several_blocks)
        addresses.alone.lock(addresses.of, together ? ENDS : warp.active);
    if (together && is_inside(addresses.of[0], addresses.extent(bytes), bounds.begin, bounds.end))
        return note_global(warp, at, *bounds.array, ALL, addresses, bytes, access);
    for (uint32_t rest = warp.active;;) {
        const uint32_t inside =
            rest & bits_where([&](int l) {
                return is_inside(addresses.of[l], bytes, bounds.begin, bounds.end);
            });
        if (inside) note_global(warp, at, *bounds.array, inside, addresses, bytes, access);
        rest &= ~inside;
        if (!rest) return;
        const int lane = lowest(rest);
        const uint64_t address = addresses.of[lane];
        const Array *array = memory.array_at(reinterpret_cast<const void *>(address));
        if (!array || !is_inside(address, bytes, array->begin, array->end))
            report_bounds(warp, lane, at, address, bytes, access);
        bounds = {array->begin, array->end, array};
    }
}

[[noreturn]] void report_shared_bounds(const Warp &warp, const Instruction &at,
                                       const Addresses &addresses, uint32_t bytes, Access access) {
    const uint64_t size = warp.block->shared.size();
    int lane = lowest(warp.active);
    for (uint32_t rest = warp.active; rest; rest &= rest - 1)
        if (addresses.of[lowest(rest)] > addresses.of[lane]) lane = lowest(rest);
    fault(FaultKind::out_of_bounds, warp, lane,
          attempt(warp, at, bytes, access) + " is out of bounds: offset " +
              std::to_string(int64_t(addresses.of[lane])) + " of " + std::to_string(size) +
              " bytes of shared memory");
}

void check_shared(Warp &warp, const Instruction &at, Addresses &addresses, uint32_t bytes,
                  Access access) {
    SharedMemory &shared = warp.block->shared;
    const bool together = addresses.shape != Shape::scattered;
    uint64_t first = addresses.of[0], extent = addresses.extent(bytes);
    if (!together) {
        first = 0;
        for (int l = 0; l < LANES; ++l)
            first = std::max(first, warp.active >> l & 1 ? addresses.of[l] : 0);
    }
    if (!is_inside(first, extent, 0, shared.size()))
        report_shared_bounds(warp, at, addresses, bytes, access);
    Offsets offsets;
    for (int l = 0; l < LANES; ++l) offsets[l] = uint32_t(addresses.of[l]);
    shared.check(warp, at, addresses.shape, offsets, bytes, access);
    const uint64_t begin = reinterpret_cast<uint64_t>(shared.data());
    for (int l = 0; l < LANES; ++l) addresses.of[l] += warp.active >> l & 1 ? begin : 0;
}

void check_local(Warp &warp, const Instruction &at, Addresses &addresses, uint32_t bytes,
                 Access access) {
    const uint32_t size = warp.block->running.program.local_bytes;
    addresses.shape = Shape::scattered;  // each lane has memory of its own
    for (uint32_t rest = warp.active; rest; rest &= rest - 1) {
        const int lane = lowest(rest);
        const uint64_t address = addresses.of[lane];
        if (address + bytes > size || address + bytes < bytes)
            fault(FaultKind::out_of_bounds, warp, lane,
                  attempt(warp, at, bytes, access) + " is out of bounds: offset " +
                      std::to_string(int64_t(address)) + " of " + std::to_string(size) +
                      " bytes of the thread's own memory");
        addresses.of[lane] =
            reinterpret_cast<uint64_t>(warp.local) + uint64_t(lane) * size + address;
    }
}

void check_parameter(Warp &warp, const Instruction &at, Addresses &addresses, uint32_t bytes) {
    const Running &running = warp.block->running;
    const uint32_t size = running.launch.function->parameter_bytes;
    for (uint32_t rest = warp.active; rest; rest &= rest - 1) {
        const int lane = lowest(rest);
        if (addresses.of[lane] + bytes > size)
            fault(FaultKind::out_of_bounds, warp, lane,
                  attempt(warp, at, bytes, Access::read) + " is out of bounds: offset " +
                      std::to_string(int64_t(addresses.of[lane])) + " of " + std::to_string(size) +
                      " bytes of parameters");
        addresses.of[lane] += reinterpret_cast<uint64_t>(running.parameters.data());
    }
}

// Lanes whose address is in a window; it becomes an offset in it.
uint32_t take_window(const Warp &warp, Addresses &addresses, uint64_t window) {
    uint32_t found = 0;
    for (uint32_t rest = warp.active; rest; rest &= rest - 1) {
        const int lane = lowest(rest);
        if (addresses.of[lane] - window >= WINDOW_BYTES) continue;
        addresses.of[lane] -= window;
        found |= 1u << lane;
    }
    return found;
}

void check_generic(Warp &warp, const Instruction &at, Addresses &addresses, uint32_t bytes,
                   uint32_t alignment, Access access) {
    const uint32_t all = warp.active;
    uint64_t furthest = 0;
    for (int l = 0; l < LANES; ++l)
        furthest = std::max(furthest, all >> l & 1 ? addresses.of[l] : 0);
    if (furthest < SHARED_WINDOW) return check_global(warp, at, addresses, bytes, access);
    const uint32_t shared = take_window(warp, addresses, SHARED_WINDOW);
    const uint32_t local = take_window(warp, addresses, LOCAL_WINDOW);
    const uint32_t parameter = take_window(warp, addresses, PARAMETER_WINDOW);
    const auto check = [&](uint32_t lanes, Space space) {
        warp.active = lanes;
        if (lanes) check_access(warp, at, space, addresses, bytes, alignment, access);
    };
    check(shared, Space::shared);
    check(local, Space::local);
    check(parameter, Space::parameter);
    check(all & ~shared & ~local & ~parameter, Space::global);
    warp.active = all;
}

}  // namespace

Addresses addresses_of(const Warp &warp, const Instruction &at) {
    return addresses_of(warp, at.a, at.immediate, at.wide_address);
}

Addresses addresses_of(const Warp &warp, uint32_t operand, int64_t offset, bool wide) {
    Addresses result;
    if (wide) {
        const uint64_t *base = warp.at<uint64_t>(operand);
        for (int l = 0; l < LANES; ++l) result.of[l] = base[l] + uint64_t(offset);
    } else {
        const uint32_t *base = warp.at<uint32_t>(operand);
        for (int l = 0; l < LANES; ++l) result.of[l] = base[l] + uint32_t(offset);
    }
    return result;
}

void check_alignment(const Warp &warp, const Instruction &at, const Addresses &addresses,
                     uint32_t bytes, uint32_t alignment, Access access) {
    uint64_t together = addresses.of[0];
    if (addresses.shape == Shape::scattered || bytes % alignment != 0) {
        together = 0;
        for (int l = 0; l < LANES; ++l) together |= warp.active >> l & 1 ? addresses.of[l] : 0;
    }
    if (together & (alignment - 1))
        for (uint32_t rest = warp.active; rest; rest &= rest - 1)
            if (addresses.of[lowest(rest)] & (alignment - 1))
                fault(FaultKind::misaligned, warp, lowest(rest),
                      attempt(warp, at, bytes, access) + " is not aligned: " +
                          address_of(warp.block->running, addresses.of[lowest(rest)], bytes) +
                          " is no multiple of " + std::to_string(alignment));
}

void check_access(Warp &warp, const Instruction &at, Space space, Addresses &addresses,
                  uint32_t bytes, uint32_t alignment, Access access) {
    addresses.shape = warp.active == ALL ? shape_of(addresses, bytes) : Shape::scattered;
    check_alignment(warp, at, addresses, bytes, alignment, access);
    switch (space) {
    case Space::global:
    case Space::constant:
        return check_global(warp, at, addresses, bytes, access);
    case Space::shared:
        return check_shared(warp, at, addresses, bytes, access);
    case Space::local:
        return check_local(warp, at, addresses, bytes, access);
    case Space::parameter:
        return check_parameter(warp, at, addresses, bytes);
    case Space::generic:
        return check_generic(warp, at, addresses, bytes, alignment, access);
    }
}

}  // namespace gpu
