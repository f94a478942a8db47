#include "report.h"

#include <algorithm>
#include <cstdio>
#include <cstring>

namespace gpu {
namespace {

std::string triple(uint64_t x, uint64_t y, uint64_t z) {
    return "(" + std::to_string(x) + ", " + std::to_string(y) + ", " + std::to_string(z) + ")";
}

std::string line_of(const Program &program, const Place &place) {
    const auto file = program.files.find(place.file);
    const std::string name = file == program.files.end() ? "" : file->second;
    return name + ":" + std::to_string(place.line);
}

// Which parameter of the kernel points into an array, -1 if none does.
int parameter_of(const Running &running, const Array &array) {
    const std::vector<Parameter> &parameters = running.launch.function->parameters;
    for (size_t i = 0; i < parameters.size(); ++i) {
        if (parameters[i].bytes != 8) continue;
        uint64_t value;
        memcpy(&value, running.parameters.data() + parameters[i].offset, 8);
        if (value >= array.begin && value < std::max(array.end, array.begin + 1)) return int(i);
    }
    return -1;
}

const char *verb(Access access) {
    switch (access) {
    case Access::read:
        return "read";
    case Access::write:
        return "write";
    case Access::atomic:
        return "atomic access";
    default:
        return "asynchronous copy";
    }
}

}  // namespace

std::string place_of(const Program &program, const Instruction &at) {
    const size_t index = program.index(at);
    const Statement *statement = nullptr;
    // An instruction between two statements belongs to the one after it.
    for (size_t i = index; i < program.statements.size() && !statement; ++i)
        statement = program.statements[i];
    if (!statement) return "the end of " + program.kernel;
    if (statement->place.line == 0) return "PTX line " + std::to_string(statement->ptx_line);
    std::string text = line_of(program, statement->place);
    // A function of a header tells little without the line of the kernel that uses it.
    std::string from;
    for (const Place *p = statement->place.inlined_at.get(); p; p = p->inlined_at.get())
        from += (from.empty() ? " (from " : ", ") + line_of(program, *p);
    return from.empty() ? text : text + from + ")";
}

std::string thread_name(const Warp &warp, uint32_t thread) {
    const Dim3 &size = warp.block->running.launch.block;
    return triple(thread % size.x, thread / size.x % size.y, thread / size.x / size.y);
}

std::string where(const Warp &warp, int lane) {
    const Block &block = *warp.block;
    std::string text = block.running.program.kernel + ", block " +
                       triple(block.index.x, block.index.y, block.index.z);
    if (lane >= 0) text += ", thread " + thread_name(warp, warp.index * LANES + uint32_t(lane));
    return text;
}

std::string thread_list(const Warp &warp, uint32_t lanes) {
    std::string text = (lanes & (lanes - 1)) == 0 ? "thread " : "threads ";
    for (int lane = 0; lane < LANES; ++lane) {
        if (!(lanes >> lane & 1)) continue;
        int last = lane;
        while (last + 1 < LANES && (lanes >> (last + 1) & 1)) ++last;
        const uint32_t first = warp.index * LANES;
        if (text.back() != ' ') text += ", ";
        text += std::to_string(first + uint32_t(lane));
        if (last > lane) text += "-" + std::to_string(first + uint32_t(last));
        lane = last;
    }
    return text;
}

std::string attempt(const Warp &warp, const Instruction &at, uint32_t bytes, Access access) {
    return std::string(verb(access)) + " of " + std::to_string(bytes) + " bytes at " +
           place_of(warp.block->running.program, at);
}

std::string address_of(const Running &running, uint64_t address, uint32_t bytes) {
    char text[32];
    snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(address));
    const auto *pointer = reinterpret_cast<const void *>(address);
    if (!running.machine.memory.contains(pointer)) return text;
    const Array *array = running.machine.memory.nearest(pointer);
    if (!array) return std::string(text) + ", with no array on the GPU";
    std::string place;
    if (address >= array->begin && address + bytes <= array->end)
        place = "byte " + std::to_string(address - array->begin);
    else if (address + bytes > array->end)
        place = std::to_string(address + bytes - array->end) + " bytes past the end";
    else
        place = std::to_string(array->begin - address) + " bytes before the start";
    const std::string name =
        array->name.empty() ? std::string("an array") : "`" + array->name + "`";
    const int parameter = parameter_of(running, *array);
    return std::string(text) + ", " + place + " of " + name + " of " +
           std::to_string(array->end - array->begin) + " bytes" +
           (parameter >= 0 ? " (parameter " + std::to_string(parameter) + ")" : "");
}

void report_missing_members(const Warp &warp, uint32_t lanes, uint32_t members,
                            const Instruction &at) {
    char mask[16];
    snprintf(mask, sizeof mask, "0x%08x", members);
    std::string what = thread_list(warp, lanes) + " wait in a warp operation with mask " + mask +
                       " at " + place_of(warp.block->running.program, at) +
                       " that not all lanes of the mask take part in";
    uint32_t missing = members & warp.present & ~lanes;
    for (const Fragment &f : warp.fragments)
        if (f.used && f.waiting == Waiting::warp_operation) missing &= ~f.mask;
    if (missing) what += ": " + thread_list(warp, missing) + " will not come";
    fault(FaultKind::barrier, warp, -1, what);
}

void fault(FaultKind kind, const Warp &warp, int lane, const std::string &what) {
    throw Fault(kind, where(warp, lane) + ": " + what);
}

}  // namespace gpu
