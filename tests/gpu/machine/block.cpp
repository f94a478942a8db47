#include "block.h"

#include <algorithm>
#include <cstring>

#include "counting.h"
#include "report.h"

namespace gpu {
namespace {

// Backward branches of a warp until the others get a turn: it may be waiting for one of them.
constexpr int64_t TURN = 1 << 16;
constexpr size_t ALIGNMENT = 128;  // of registers

size_t rounded(size_t bytes) { return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT; }

std::unique_ptr<char[]> aligned(size_t bytes, char *&begin) {
    std::unique_ptr<char[]> memory(new char[bytes + ALIGNMENT]());
    const uint64_t address = reinterpret_cast<uint64_t>(memory.get());
    begin = memory.get() + (rounded(address) - address);
    return memory;
}

void fill_words(char *at, uint32_t value) {
    std::fill_n(reinterpret_cast<uint32_t *>(at), LANES, value);
}
void fill_pairs(char *at, uint64_t value) {
    std::fill_n(reinterpret_cast<uint64_t *>(at), LANES, value);
}

void run_warp(Warp &warp) {
    const Instruction *i = warp.fragments[size_t(warp.current)].next;
    while (i) i = i->run[warp.active != ALL](warp, *i);
}

void run_counted(Warp &warp, Counting &counting) {
    const Instruction *i = warp.fragments[size_t(warp.current)].next;
    while (i) {
        counting.note(warp, *i);
        i = i->run[warp.active != ALL](warp, *i);
    }
}

}  // namespace

Block::Block(Running &of)
    : running(of), threads(uint32_t(of.launch.block.count())),
      shared(of.program.static_shared + of.launch.dynamic_shared, (threads + LANES - 1) / LANES,
             of.program.smallest_shared_access),
      bounds(of.program.memory_sites), copies(of.program.copies ? threads : 0) {
    const Program &program = running.program;
    const uint32_t count = (threads + LANES - 1) / LANES;
    register_stride_ = rounded(program.register_bytes);
    local_stride_ = size_t(program.local_bytes) * LANES;
    char *registers, *common;
    registers_ = aligned(register_stride_ * count, registers);
    common_ = aligned(program.common_bytes, common);
    local_.reset(new char[local_stride_ * count + 1]());
    warps.resize(count);
    for (uint32_t i = 0; i < count; ++i) {
        Warp &warp = warps[i];
        warp.index = i;
        warp.block = this;
        warp.bases[0] = registers + i * register_stride_;
        warp.bases[1] = common;
        warp.local = local_.get() + i * local_stride_;
        set_warp_values(warp);
    }
    set_common();
    if (running.launch.counters) counting = std::make_unique<Counting>(*this);
}

Block::~Block() = default;

// What stays the same for all blocks of the launch.
void Block::set_common() {
    const Launch &launch = running.launch;
    const Device &device = running.machine.device;
    const auto lane_mask = [&](const Preset &p, auto of_lane) {
        for (int lane = 0; lane < LANES; ++lane)
            reinterpret_cast<uint32_t *>(warps[0].bases[1] + p.place)[lane] = of_lane(lane);
    };
    for (const Preset &p : running.program.presets) {
        char *at = warps[0].bases[1] + p.place;
        uint64_t value = p.bits;
        switch (p.kind) {
        case Preset::constant:
            break;
        case Preset::parameter:
            value = 0;
            memcpy(&value, running.parameters.data() + p.bits, bytes_of(p.type));
            if (p.type == Type::s8) value = uint64_t(int8_t(value));
            if (p.type == Type::s16) value = uint64_t(int16_t(value));
            break;
        case Preset::ntid_x:
            value = launch.block.x;
            break;
        case Preset::ntid_y:
            value = launch.block.y;
            break;
        case Preset::ntid_z:
            value = launch.block.z;
            break;
        case Preset::nctaid_x:
            value = launch.grid.x;
            break;
        case Preset::nctaid_y:
            value = launch.grid.y;
            break;
        case Preset::nctaid_z:
            value = launch.grid.z;
            break;
        case Preset::nwarpid:
            value = uint32_t(device.threads_per_multiprocessor / LANES);
            break;
        case Preset::nsmid:
            value = uint32_t(device.multiprocessors);
            break;
        case Preset::gridid:
            value = running.serial;
            break;
        case Preset::dynamic_smem_size:
            value = launch.dynamic_shared;
            break;
        case Preset::total_smem_size:
            value = shared.size();
            break;
        case Preset::laneid:
            lane_mask(p, [](int l) { return uint32_t(l); });
            continue;
        case Preset::lanemask_eq:
            lane_mask(p, [](int l) { return 1u << l; });
            continue;
        case Preset::lanemask_lt:
            lane_mask(p, [](int l) { return (1u << l) - 1; });
            continue;
        case Preset::lanemask_le:
            lane_mask(p, [](int l) { return (2u << l) - 1; });
            continue;
        case Preset::lanemask_gt:
            lane_mask(p, [](int l) { return ~((2u << l) - 1); });
            continue;
        case Preset::lanemask_ge:
            lane_mask(p, [](int l) { return ~((1u << l) - 1); });
            continue;
        default:
            continue;  // of a warp or block
        }
        if (p.wide)
            fill_pairs(at, value);
        else
            fill_words(at, uint32_t(value));
    }
}

void Block::set_block_values() {
    for (const Preset &p : running.program.presets) {
        char *at = warps[0].bases[1] + p.place;
        if (p.kind == Preset::ctaid_x) fill_words(at, index.x);
        if (p.kind == Preset::ctaid_y) fill_words(at, index.y);
        if (p.kind == Preset::ctaid_z) fill_words(at, index.z);
        if (p.kind == Preset::smid)
            fill_words(at, uint32_t(number % uint64_t(running.machine.device.multiprocessors)));
    }
}

void Block::set_warp_values(Warp &warp) {
    const Dim3 &size = running.launch.block;
    for (const Preset &p : running.program.presets) {
        if (!p.of_warp()) continue;
        auto *at = reinterpret_cast<uint32_t *>(warp.bases[0] + p.place);
        for (uint32_t lane = 0; lane < LANES; ++lane) {
            const uint32_t thread = warp.index * LANES + lane;
            at[lane] = p.kind == Preset::tid_x   ? thread % size.x
                       : p.kind == Preset::tid_y ? thread / size.x % size.y
                       : p.kind == Preset::tid_z ? thread / size.x / size.y
                                                 : warp.index;
        }
    }
}

void Block::run(uint64_t which) {
    number = which;
    const Dim3 &grid = running.launch.grid;
    index = {uint32_t(number % grid.x), uint32_t(number / grid.x % grid.y),
             uint32_t(number / grid.x / grid.y)};
    set_block_values();
    shared.begin_block();
    for (Barrier &barrier : barriers) barrier = Barrier();
    fenced = false, acquired = 0, releasing = -1;
    for (Warp &warp : warps) warp.wrote = false;
    for (PendingCopies &pending : copies) pending = PendingCopies();
    for (Warp &warp : warps) {
        const uint32_t left = threads - warp.index * LANES;
        start(warp, running.program.code.data(), left >= LANES ? ALL : (1u << left) - 1,
              running.machine.opposite);
    }
    run_warps();
    if (counting) counting->end_block();
}

void Block::run_warps() {
    for (;;) {
        bool ran = false, all_ended = true, gave_way = false;
        for (size_t i = 0; i < warps.size(); ++i) {
            Warp &warp = warps[running.machine.opposite ? warps.size() - 1 - i : i];
            if (warp.state == Warp::ended) continue;
            all_ended = false;
            if (warp.current < 0) continue;
            ran = true;
            warp.turn = TURN;
            if (counting)
                run_counted(warp, *counting);
            else
                run_warp(warp);
            if ((warp.present & ~warp.exited) == 0) warp.state = Warp::ended;
            gave_way = gave_way || warp.current >= 0;
        }
        if (all_ended) return;
        // A block that waits for another one would wait forever after a fault of that one.
        if (gave_way && running.stopped) return;
        if (!release_barriers() && !ran) report_deadlock();
    }
}

bool Block::release_barriers() {
    bool any = false;
    for (const Warp &warp : warps)
        if (warp.state == Warp::at_barrier) any = release_barrier(warp.barrier) || any;
    return any;
}

// Releases the threads at a barrier if all that it waits for have arrived.
bool Block::release_barrier(uint32_t number_of) {
    std::vector<uint32_t> here;
    uint32_t arrived = barriers[number_of].arrived, expected = 0;
    for (const Warp &warp : warps) {
        if (warp.state != Warp::at_barrier || warp.barrier != number_of) continue;
        if (warp.current >= 0) return false;  // some of its lanes are still on their way
        uint32_t lanes = 0;
        for (const Fragment &f : warp.fragments)
            if (f.used && f.waiting == Waiting::barrier && f.next == warp.barrier_at)
                lanes |= f.mask;
        if (lanes != (warp.present & ~warp.exited)) return false;
        here.push_back(warp.index);
        expected = warp.barrier_threads;
        // A count is in whole warps.
        arrived += expected ? uint32_t(LANES) : uint32_t(__builtin_popcount(lanes));
    }
    if (here.empty() || arrived != (expected ? expected : threads)) return false;
    shared.synchronise(here);
    Barrier &barrier = barriers[number_of];
    barrier = {0, 0, barrier.votes};
    releasing = -1;
    for (uint32_t i : here) {
        warps[i].wrote = false;
        leave_barrier(warps[i]);
    }
    return true;
}

// Deadlock: reports which threads wait where, and for which others.
void Block::report_deadlock() {
    const Program &program = running.program;
    for (const Warp &warp : warps)
        for (const Fragment &f : warp.fragments) {
            if (!f.used || f.waiting != Waiting::warp_operation) continue;
            report_missing_members(warp, f.mask, f.members, *f.next);
        }
    // The barrier that most warps wait at, and the first thread that does not.
    const Warp *waiting = nullptr;
    const Instruction *at = nullptr;
    std::string here;
    for (const Warp &warp : warps)
        for (const Fragment &f : warp.fragments) {
            if (!f.used || f.waiting != Waiting::barrier) continue;
            if (!waiting) waiting = &warp, at = f.next;
            if (f.next == at) here += (here.empty() ? "" : ", ") + thread_list(warp, f.mask);
        }
    std::string others;
    for (const Warp &warp : warps) {
        uint32_t absent = warp.present & ~warp.exited;
        for (const Fragment &f : warp.fragments) {
            if (!f.used || f.waiting != Waiting::barrier) continue;
            absent &= ~f.mask;
            if (f.next != at)
                others += ", " + thread_list(warp, f.mask) + " wait at the one at " +
                          place_of(program, *f.next);
        }
        if (absent) others += ", " + thread_list(warp, absent) + " will not come";
        if (warp.exited) others += ", " + thread_list(warp, warp.exited) + " have returned";
    }
    fault(FaultKind::barrier, *waiting, -1,
          here + " wait at the barrier at " + place_of(program, *at) + " while" +
              (others.empty() ? " fewer threads come than it is to wait for" : others.substr(1)));
}

}  // namespace gpu
