// Memory: of the device, of the host where the device may use it, and of both.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstring>

#include "context.h"
#include "stream.h"

using namespace gpu;

namespace {

// The largest array, in bytes, that is filled when it is made. A larger one is marked as
// uninitialised, too, but its pages take no memory until they are written.
constexpr size_t MOST_FILLED = size_t(1) << 30;

uintptr_t address(const void *pointer) { return reinterpret_cast<uintptr_t>(pointer); }

// Returns an array of the machine; nullptr for none of 0 bytes, as cudaMalloc does.
void *allocate(size_t bytes, const char *name) {
    static uint64_t serial = 0;
    Context &it = context();
    if (bytes == 0) return nullptr;
    const size_t total = it.machine.device.memory, used = it.machine.memory.allocated();
    void *found =
        bytes <= total - std::min(used, total) ? it.machine.memory.allocate(bytes, name) : nullptr;
    if (!found)
        throw Failure(cudaErrorMemoryAllocation, std::to_string(bytes) + " bytes were asked for, " +
                                                     std::to_string(used) + " of " +
                                                     std::to_string(total) + " are in use");
    it.serials[address(found)] = ++serial;
    if (bytes <= MOST_FILLED) std::memset(found, UNWRITTEN, bytes);
    return found;
}

void release(void *pointer, const char *function) {
    Context &it = context();
    if (!it.machine.memory.free(pointer))
        throw Failure(cudaErrorInvalidValue,
                      std::string(function) + ": no memory that is in use begins at this address");
    it.serials.erase(address(pointer));
    forget_accesses(pointer);
}

// The entry of `ranges` that an address lies in, or end().
template <typename Ranges, typename Bytes>
auto find_range(Ranges &ranges, const void *pointer, Bytes bytes) {
    auto after = ranges.upper_bound(address(pointer));
    if (after == ranges.begin()) return ranges.end();
    auto found = std::prev(after);
    return address(pointer) < found->first + bytes(found->second) ? found : ranges.end();
}

void check_managed(const void *pointer, cudaMemLocation to) {
    if (memory_kind(pointer) != MemoryKind::managed)
        throw Failure(cudaErrorInvalidValue, "the memory is not managed");
    if (to.type == cudaMemLocationTypeDevice && to.id != 0)
        throw Failure(cudaErrorInvalidDevice,
                      "got device " + std::to_string(to.id) + ", expected 0, the only one");
}

}  // namespace

namespace gpu {

MemoryKind memory_kind(const void *pointer) {
    Context &it = context();
    const auto host = [](const HostMemory &memory) { return memory.bytes; };
    if (find_range(it.host, pointer, host) != it.host.end()) return MemoryKind::pinned;
    const auto same = [](size_t bytes) { return bytes; };
    if (find_range(it.managed, pointer, same) != it.managed.end()) return MemoryKind::managed;
    return it.machine.memory.contains(pointer) ? MemoryKind::device : MemoryKind::pageable;
}

}  // namespace gpu

extern "C" {

cudaError_t cudaMalloc(void **pointer, size_t bytes) {
    return runtime_call([&] {
        check_unsafe_call("cudaMalloc");
        *pointer = allocate(bytes, "");
    });
}

cudaError_t cudaFree(void *pointer) {
    const auto body = [&] {
        if (!pointer) return;
        check_unsafe_call("cudaFree");
        context().managed.erase(address(pointer));
        release(pointer, "cudaFree");
    };
    return runtime_call(body, AFTER_FAULT);
}

cudaError_t cudaMallocManaged(void **pointer, size_t bytes, unsigned) {
    return runtime_call([&] {
        check_unsafe_call("cudaMallocManaged");
        if (bytes == 0) throw Failure(cudaErrorInvalidValue, "managed memory of 0 bytes");
        *pointer = allocate(bytes, "managed memory");
        context().machine.memory.wrote(*pointer, bytes);  // the host may, unseen
        context().managed[address(*pointer)] = bytes;
    });
}

cudaError_t cudaHostAlloc(void **pointer, size_t bytes, unsigned) {
    return runtime_call([&] {
        check_unsafe_call("cudaHostAlloc");
        *pointer = allocate(bytes, "page-locked host memory");
        if (!*pointer) return;
        context().machine.memory.wrote(*pointer, bytes);  // the host may, unseen
        context().host[address(*pointer)] = {bytes, true};
    });
}

cudaError_t cudaFreeHost(void *pointer) {
    const auto body = [&] {
        if (!pointer) return;
        const auto found = context().host.find(address(pointer));
        if (found == context().host.end() || !found->second.allocated)
            throw Failure(cudaErrorInvalidValue,
                          "cudaFreeHost: no memory of cudaHostAlloc begins at this address");
        context().host.erase(found);
        release(pointer, "cudaFreeHost");
    };
    return runtime_call(body, AFTER_FAULT);
}

cudaError_t cudaHostRegister(void *pointer, size_t bytes, unsigned) {
    return runtime_call([&] {
        if (!pointer || bytes == 0) throw Failure(cudaErrorInvalidValue);
        if (memory_kind(pointer) != MemoryKind::pageable)
            throw Failure(cudaErrorHostMemoryAlreadyRegistered);
        context().host[address(pointer)] = {bytes, false};
    });
}

cudaError_t cudaHostUnregister(void *pointer) {
    return runtime_call([&] {
        const auto found = context().host.find(address(pointer));
        if (found == context().host.end() || found->second.allocated)
            throw Failure(cudaErrorHostMemoryNotRegistered);
        context().host.erase(found);
    });
}

cudaError_t cudaMemGetInfo(size_t *free, size_t *total) {
    return runtime_call([&] {
        *total = context().machine.device.memory;
        *free = *total - std::min(*total, context().machine.memory.allocated());
    });
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes *attributes, const void *pointer) {
    return runtime_call([&] {
        *attributes = {};
        attributes->device = cudaInvalidDeviceId;
        const MemoryKind kind = memory_kind(pointer);
        if (kind == MemoryKind::pageable) {
            attributes->type = cudaMemoryTypeUnregistered;
            return;
        }
        attributes->type = kind == MemoryKind::pinned    ? cudaMemoryTypeHost
                           : kind == MemoryKind::managed ? cudaMemoryTypeManaged
                                                         : cudaMemoryTypeDevice;
        attributes->device = 0;
        attributes->devicePointer = const_cast<void *>(pointer);
        if (kind != MemoryKind::device) attributes->hostPointer = const_cast<void *>(pointer);
    });
}

cudaError_t cudaMemPrefetchAsync(const void *pointer, size_t, cudaMemLocation to, unsigned,
                                 cudaStream_t) {
    return runtime_call([&] { check_managed(pointer, to); });
}

cudaError_t cudaMemAdvise(const void *pointer, size_t, cudaMemoryAdvise advice,
                          cudaMemLocation to) {
    return runtime_call([&] {
        check_managed(pointer, to);
        if (advice < cudaMemAdviseSetReadMostly || advice > cudaMemAdviseUnsetAccessedBy)
            throw Failure(cudaErrorInvalidValue,
                          "there is no advice " + std::to_string(int(advice)) + " on memory");
    });
}
}
