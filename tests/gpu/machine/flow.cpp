#include "flow.h"

#include <algorithm>

#include "error.h"

namespace gpu {
namespace {

bool ends_block(const std::string &opcode) {
    return opcode == "bra" || opcode == "brx" || opcode == "ret" || opcode == "exit" ||
           opcode == "trap";
}

// The statements that a branch may go to.
std::vector<uint32_t> targets(const Flat &flat, const Statement &s) {
    std::vector<std::string> names;
    if (s.opcode == "bra") {
        names.push_back(s.operands.at(0).text);
    } else if (s.opcode == "brx") {
        const auto found = flat.targets.find(s.operands.at(1).text);
        if (found != flat.targets.end()) names = found->second;
    }
    std::vector<uint32_t> found;
    for (const std::string &name : names) {
        const auto label = flat.labels.find(name);
        if (label == flat.labels.end())
            throw Error("PTX line " + std::to_string(s.ptx_line) + ": " + s.text +
                        " to a label that is not there: " + name);
        found.push_back(label->second);
    }
    return found;
}

std::vector<BasicBlock> split(const Flat &flat) {
    const uint32_t count = uint32_t(flat.statements.size());
    std::vector<uint32_t> starts = {0};
    for (const auto &label : flat.labels) starts.push_back(label.second);
    for (uint32_t i = 0; i < count; ++i)
        if (ends_block(flat.statements[i].opcode)) starts.push_back(i + 1);
    std::sort(starts.begin(), starts.end());
    starts.erase(std::unique(starts.begin(), starts.end()), starts.end());
    std::vector<BasicBlock> blocks;
    for (size_t i = 0; i < starts.size(); ++i) {
        if (starts[i] >= count) break;
        BasicBlock block;
        block.begin = starts[i];
        block.end = i + 1 < starts.size() ? std::min(starts[i + 1], count) : count;
        blocks.push_back(block);
    }
    return blocks;
}

void connect(const Flat &flat, std::vector<BasicBlock> &blocks) {
    const auto block_at = [&](uint32_t statement) {
        return uint32_t(
            std::upper_bound(blocks.begin(), blocks.end(), statement,
                             [](uint32_t at, const BasicBlock &b) { return at < b.begin; }) -
            blocks.begin() - 1);
    };
    for (size_t i = 0; i < blocks.size(); ++i) {
        const Statement &last = flat.statements[blocks[i].end - 1];
        std::vector<uint32_t> &next = blocks[i].successors;
        for (uint32_t target : targets(flat, last))
            if (target < flat.statements.size()) next.push_back(block_at(target));
        if ((!ends_block(last.opcode) || !last.guard.empty()) && i + 1 < blocks.size())
            next.push_back(uint32_t(i + 1));
        std::sort(next.begin(), next.end());
        next.erase(std::unique(next.begin(), next.end()), next.end());
    }
}

// Immediate post-dominators, by Cooper, Harvey and Kennedy's "A simple, fast dominance algorithm"
// on the reversed graph, whose root is the kernel's end.
void find_joins(std::vector<BasicBlock> &blocks) {
    const int end = int(blocks.size());
    std::vector<std::vector<int>> before(blocks.size() + 1);
    for (int i = 0; i < end; ++i) {
        for (uint32_t next : blocks[size_t(i)].successors) before[next].push_back(i);
        if (blocks[size_t(i)].successors.empty()) before[size_t(end)].push_back(i);
    }
    std::vector<int> order, number(blocks.size() + 1, -1);  // postorder from the end
    std::vector<std::pair<int, size_t>> stack = {{end, 0}};
    std::vector<bool> seen(blocks.size() + 1);
    seen[size_t(end)] = true;
    while (!stack.empty()) {
        auto &[at, next] = stack.back();
        if (next < before[size_t(at)].size()) {
            const int child = before[size_t(at)][next++];
            if (!seen[size_t(child)]) {
                seen[size_t(child)] = true;
                stack.push_back({child, 0});
            }
        } else {
            number[size_t(at)] = int(order.size());
            order.push_back(at);
            stack.pop_back();
        }
    }
    std::vector<int> join(blocks.size() + 1, -1);
    join[size_t(end)] = end;
    const auto meet = [&](int a, int b) {
        while (a != b) {
            while (number[size_t(a)] < number[size_t(b)]) a = join[size_t(a)];
            while (number[size_t(b)] < number[size_t(a)]) b = join[size_t(b)];
        }
        return a;
    };
    for (bool changed = true; changed;) {
        changed = false;
        for (size_t i = order.size() - 1; i-- > 0;) {
            const int at = order[i];
            int found = blocks[size_t(at)].successors.empty() ? end : -1;
            for (uint32_t next : blocks[size_t(at)].successors)
                if (join[next] >= 0) found = found < 0 ? int(next) : meet(found, int(next));
            if (join[size_t(at)] != found) join[size_t(at)] = found, changed = true;
        }
    }
    for (int i = 0; i < end; ++i) {
        BasicBlock &block = blocks[size_t(i)];
        block.join = join[size_t(i)] == end ? -1 : join[size_t(i)];
        if (block.successors.size() > 1 && block.join >= 0)
            blocks[size_t(block.join)].is_join = true;
    }
}

}  // namespace

std::vector<BasicBlock> flow_of(const Flat &flat) {
    std::vector<BasicBlock> blocks = split(flat);
    connect(flat, blocks);
    find_joins(blocks);
    return blocks;
}

}  // namespace gpu
