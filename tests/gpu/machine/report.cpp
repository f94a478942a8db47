#include "report.h"

#include <algorithm>
#include <cstdio>
#include <cstring>

namespace gpu {
namespace {

std::string triple(uint64_t x, uint64_t y, uint64_t z) {
    return "(" + std::to_string(x) + ", " + std::to_string(y) + ", " + std::to_string(z) + ")";
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

}  // namespace

std::string place_of(const Program &program, const Instruction &at) {
    const size_t index = program.index(at);
    const Statement *statement = nullptr;
    // An instruction between two statements belongs to the one after it.
    for (size_t i = index; i < program.statements.size() && !statement; ++i)
        statement = program.statements[i];
    if (!statement) return "the end of " + program.kernel;
    if (statement->place.line == 0) return "PTX line " + std::to_string(statement->ptx_line);
    const auto file = program.files.find(statement->place.file);
    const std::string name = file == program.files.end() ? "" : file->second;
    return name + ":" + std::to_string(statement->place.line);
}

std::string thread_name(const Warp &warp, uint32_t thread) {
    const Dim3 &size = warp.block->running.launch.block;
    return triple(thread % size.x, thread / size.x % size.y, thread / size.x / size.y);
}

std::string where(const Warp &warp, int lane) {
    const Block &block = *warp.block;
    std::string text = block.running.program.kernel + ", block " +
                       triple(block.index.x, block.index.y, block.index.z);
    if (lane >= 0)
        text += ", thread " + thread_name(warp, warp.index * LANES + uint32_t(lane));
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

void fault(FaultKind kind, const Warp &warp, int lane, const std::string &what) {
    throw Fault(kind, where(warp, lane) + ": " + what);
}

}  // namespace gpu
