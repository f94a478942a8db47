// Counting, for Python: emulated_count() begins, emulated_counted() ends it and returns the counts.
#include <memory>
#include <sstream>
#include <vector>

#include "../machine/counters.h"
#include "context.h"
#include "counting.h"
#include "occupancy.h"

namespace gpu {
namespace {

struct Counted {
    std::string kernel;
    Dim3 grid, block;
    uint32_t dynamic_shared;
    Resources resources;
    int resident;  // blocks that a multiprocessor runs side by side
    Counters counters;
};

// Since emulated_count(); nullptr: nothing is counted.
std::unique_ptr<std::vector<Counted>> recording;
std::string told;

std::ostream &operator<<(std::ostream &out, const Figures &figures) {
    for (int f = 0; f < FIGURES; ++f)
        out << (f ? ", \"" : "{\"") << name_of(Figure(f)) << "\": " << figures[f];
    return out << "}";
}

std::ostream &operator<<(std::ostream &out, Dim3 d) {
    return out << "[" << d.x << ", " << d.y << ", " << d.z << "]";
}

// Bytes, by sectors of 32.
std::ostream &operator<<(std::ostream &out, const Sectors &sectors) {
    const Sectors::Totals totals = sectors.totals();
    return out << "{\"read\": " << totals.read * 32 << ", \"written\": " << totals.written * 32
               << ", \"touched\": " << totals.touched * 32 << "}";
}

std::ostream &operator<<(std::ostream &out, const Counted &launch) {
    const Counters &counters = launch.counters;
    out << "{\"kernel\": \"" << launch.kernel << "\", \"grid\": " << launch.grid
        << ", \"block\": " << launch.block << ", \"registers\": " << launch.resources.registers
        << ", \"static_shared\": " << launch.resources.shared
        << ", \"dynamic_shared\": " << launch.dynamic_shared
        << ", \"spilled\": " << launch.resources.spilled << ", \"resident\": " << launch.resident
        << ", \"longest_warp\": " << counters.longest_warp << ", \"bytes\": " << counters.sectors
        << ", \"all\": " << counters.all << ", \"least\": " << counters.least << ", \"tensor\": {";
    const char *comma = "";
    for (const auto &[name, count] : counters.tensor) {
        out << comma << "\"" << name << "\": " << count;
        comma = ", ";
    }
    return out << "}}";
}

}  // namespace

void run_counted(Kernel &kernel, const Launch &launch) {
    if (!recording) return run(context().machine, launch);
    Counted counted{kernel.function->name,
                    launch.grid,
                    launch.block,
                    launch.dynamic_shared,
                    resources_of(kernel),
                    resident_blocks(kernel, int(launch.block.count()), launch.dynamic_shared),
                    {}};
    Launch with_counters = launch;
    with_counters.counters = &counted.counters;
    run(context().machine, with_counters);
    recording->push_back(std::move(counted));
}

}  // namespace gpu

using namespace gpu;

extern "C" {

// Launches are counted from now on.
void emulated_count() {
    const std::lock_guard<std::mutex> locked(context_lock());
    recording = std::make_unique<std::vector<Counted>>();
}

// Ends that. Returns what the launches did, as JSON: each launch, and the bytes that all together
// touched, where what one wrote is not read by those after it. Valid until the next call.
const char *emulated_counted() {
    const std::lock_guard<std::mutex> locked(context_lock());
    std::ostringstream out;
    Sectors sectors;
    out << "{\"launches\": [";
    if (recording)
        for (const Counted &launch : *recording) {
            if (&launch != &recording->front()) out << ",\n";
            out << launch;
            sectors.follow(launch.counters.sectors);
        }
    out << "], \"bytes\": " << sectors << "}";
    recording.reset();
    told = out.str();
    return told.c_str();
}
}
