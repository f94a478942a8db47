// Copies and memsets.
#include <cuda_runtime_api.h>

#include <cstring>

#include "context.h"
#include "stream.h"

using namespace gpu;

namespace {

// One side of a copy: `rows` rows of `width` bytes, each `pitch` bytes after the one before.
struct Rows {
    char *first;
    size_t pitch, width, rows;

    char *row(size_t r) const { return first + r * pitch; }
    size_t extent() const { return (rows - 1) * pitch + width; }
};

std::string bytes_text(size_t bytes) { return std::to_string(bytes) + " bytes"; }

// Checks that rows lie in one array where they are the machine's, and adds it to those held.
void check_inside(const Rows &rows, const std::string &what, std::vector<Held> &held) {
    Memory &memory = context().machine.memory;
    if (!memory.contains(rows.first)) return;
    const Array *array = memory.array_at(rows.first);
    const uint64_t begin = reinterpret_cast<uint64_t>(rows.first);
    if (!array)
        throw Failure(cudaErrorInvalidValue,
                      what + ": its device address is not in any array that is in use");
    if (rows.extent() > array->end - begin)
        throw Failure(cudaErrorInvalidValue,
                      what + " goes beyond the array of " + bytes_text(array->end - array->begin) +
                          ", of which it begins at byte " + std::to_string(begin - array->begin));
    held.push_back({array->begin, context().serials[array->begin], array->end - array->begin});
}

std::vector<Span> spans(const Rows &rows, bool write) {
    std::vector<Span> found;
    if (!context().machine.memory.contains(rows.first)) return found;
    const bool dense = rows.pitch == rows.width;
    for (size_t r = 0; r < (dense ? 1 : rows.rows); r++) {
        const uintptr_t begin = reinterpret_cast<uintptr_t>(rows.row(r));
        found.push_back({begin, begin + (dense ? rows.extent() : rows.width), write});
    }
    return found;
}

std::vector<Span> copy_rows(const Rows &to, const Rows &from) {
    Memory &memory = context().machine.memory;
    const bool device_to = memory.contains(to.first), device_from = memory.contains(from.first);
    for (size_t r = 0; r < to.rows; r++) {
        std::memmove(to.row(r), from.row(r), to.width);
        if (device_to && device_from) memory.copied(to.row(r), from.row(r), to.width);
        if (device_to && !device_from) memory.wrote(to.row(r), to.width);
    }
    std::vector<Span> touched = spans(to, true), read = spans(from, false);
    touched.insert(touched.end(), read.begin(), read.end());
    return touched;
}

// Checks that an end of a copy is where the kind of the copy says.
void check_side(const void *pointer, bool device, const char *end) {
    const MemoryKind kind = memory_kind(pointer);
    if (device && kind == MemoryKind::pageable)
        throw Failure(cudaErrorInvalidValue, std::string("the copy's ") + end +
                                                 " is an address of the host, not of the GPU");
    if (!device && kind == MemoryKind::device)
        throw Failure(cudaErrorInvalidValue, std::string("the copy's ") + end +
                                                 " is an address of the GPU, not of the host");
}

void copy(const Rows &to, const Rows &from, cudaMemcpyKind kind, Stream &stream, bool waits) {
    if (to.width > to.pitch || from.width > from.pitch)
        throw Failure(cudaErrorInvalidValue, "a copy whose rows are longer than their pitch");
    if (to.width == 0 || to.rows == 0) return;
    if (kind != cudaMemcpyDefault) {
        check_side(to.first, kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice,
                   "destination");
        check_side(from.first, kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice,
                   "source");
    }
    const MemoryKind to_kind = memory_kind(to.first), from_kind = memory_kind(from.first);
    Work work;
    work.name =
        "a copy of " + bytes_text(to.width * to.rows) +
        (from_kind == MemoryKind::pageable || from_kind == MemoryKind::pinned ? " from the host"
         : to_kind == MemoryKind::pageable || to_kind == MemoryKind::pinned   ? " to the host"
                                                                              : "");
    check_inside(to, work.name, work.arrays);
    check_inside(from, work.name, work.arrays);
    work.run = [=] { return copy_rows(to, from); };
    const bool pageable = to_kind == MemoryKind::pageable || from_kind == MemoryKind::pageable;
    if (stream.capture && pageable) {
        check_not_captured(stream, work.name + ", which is pageable there");
    }
    enqueue(stream, std::move(work));
    // A copy to pageable memory has been done when the call returns.
    if (waits || (to_kind == MemoryKind::pageable && !stream.capture)) wait_for(stream);
}

Rows line(const void *pointer, size_t bytes) {
    return {static_cast<char *>(const_cast<void *>(pointer)), bytes, bytes, 1};
}

Rows rectangle(const void *pointer, size_t pitch, size_t width, size_t rows) {
    return {static_cast<char *>(const_cast<void *>(pointer)), pitch, width, rows};
}

// Whether a synchronous copy keeps the host until it is done.
bool waits(cudaMemcpyKind kind) { return kind != cudaMemcpyDeviceToDevice; }

void set(void *pointer, int value, size_t bytes, Stream &stream) {
    if (bytes == 0) return;
    const Rows rows = line(pointer, bytes);
    Work work;
    work.name = "a memset of " + bytes_text(bytes);
    if (memory_kind(pointer) == MemoryKind::pageable)
        throw Failure(cudaErrorInvalidValue, work.name + ": got an address of the host");
    check_inside(rows, work.name, work.arrays);
    work.run = [=] {
        std::memset(pointer, value, bytes);
        context().machine.memory.wrote(pointer, bytes);
        return spans(rows, true);
    };
    enqueue(stream, std::move(work));
}

}  // namespace

extern "C" {

cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind) {
    return runtime_call([&] {
        check_unsafe_call("cudaMemcpy");
        copy(line(to, bytes), line(from, bytes), kind, legacy_stream(), waits(kind));
    });
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
    return runtime_call(
        [&] { copy(line(to, bytes), line(from, bytes), kind, stream_of(stream), false); });
}

cudaError_t cudaMemcpy2D(void *to, size_t to_pitch, const void *from, size_t from_pitch,
                         size_t width, size_t rows, cudaMemcpyKind kind) {
    return runtime_call([&] {
        check_unsafe_call("cudaMemcpy2D");
        copy(rectangle(to, to_pitch, width, rows), rectangle(from, from_pitch, width, rows), kind,
             legacy_stream(), waits(kind));
    });
}

cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch,
                              size_t width, size_t rows, cudaMemcpyKind kind, cudaStream_t stream) {
    return runtime_call([&] {
        copy(rectangle(to, to_pitch, width, rows), rectangle(from, from_pitch, width, rows), kind,
             stream_of(stream), false);
    });
}

cudaError_t cudaMemcpyPeer(void *to, int, const void *from, int, size_t bytes) {
    return cudaMemcpy(to, from, bytes, cudaMemcpyDeviceToDevice);
}

cudaError_t cudaMemcpyPeerAsync(void *to, int, const void *from, int, size_t bytes,
                                cudaStream_t stream) {
    return cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream);
}

cudaError_t cudaMemset(void *pointer, int value, size_t bytes) {
    return runtime_call([&] {
        check_unsafe_call("cudaMemset");
        set(pointer, value, bytes, legacy_stream());
    });
}

cudaError_t cudaMemsetAsync(void *pointer, int value, size_t bytes, cudaStream_t stream) {
    return runtime_call([&] { set(pointer, value, bytes, stream_of(stream)); });
}
}
