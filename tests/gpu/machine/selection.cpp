#include "selection.h"

#include <algorithm>

#include "compiler.h"
#include "lanes.h"

namespace gpu {
namespace {

struct Special {
    const char *name;
    Preset::Kind kind;
};
constexpr Special SPECIALS[] = {
    {"%tid.x", Preset::tid_x},
    {"%tid.y", Preset::tid_y},
    {"%tid.z", Preset::tid_z},
    {"%warpid", Preset::warpid},
    {"%ctaid.x", Preset::ctaid_x},
    {"%ctaid.y", Preset::ctaid_y},
    {"%ctaid.z", Preset::ctaid_z},
    {"%smid", Preset::smid},
    {"%ntid.x", Preset::ntid_x},
    {"%ntid.y", Preset::ntid_y},
    {"%ntid.z", Preset::ntid_z},
    {"%nctaid.x", Preset::nctaid_x},
    {"%nctaid.y", Preset::nctaid_y},
    {"%nctaid.z", Preset::nctaid_z},
    {"%nwarpid", Preset::nwarpid},
    {"%nsmid", Preset::nsmid},
    {"%gridid", Preset::gridid},
    {"%dynamic_smem_size", Preset::dynamic_smem_size},
    {"%total_smem_size", Preset::total_smem_size},
    {"%laneid", Preset::laneid},
    {"%lanemask_eq", Preset::lanemask_eq},
    {"%lanemask_le", Preset::lanemask_le},
    {"%lanemask_lt", Preset::lanemask_lt},
    {"%lanemask_ge", Preset::lanemask_ge},
    {"%lanemask_gt", Preset::lanemask_gt},
};

const Special *special_named(const std::string &name) {
    for (const Special &s : SPECIALS)
        if (name == s.name) return &s;
    return nullptr;
}

}  // namespace

Selection::Selection(Compiler &compiler, const Statement &s, Instruction &i)
    : statement(s), instruction(i), compiler_(compiler), taken_(s.modifiers.size()) {}

bool Selection::take(std::string_view modifier) {
    for (size_t i = 0; i < taken_.size(); ++i)
        if (!taken_[i] && statement.modifiers[i] == modifier) {
            taken_[i] = true;
            return true;
        }
    return false;
}

int Selection::take_one(std::initializer_list<const char *> modifiers) {
    int index = 0;
    for (const char *modifier : modifiers) {
        if (take(modifier)) return index;
        ++index;
    }
    return -1;
}

const std::string *Selection::next() const {
    for (size_t i = 0; i < taken_.size(); ++i)
        if (!taken_[i]) return &statement.modifiers[i];
    return nullptr;
}

bool Selection::next_is_type() const { return next() && type_named(*next()) != Type::none; }

Type Selection::take_type() {
    for (size_t i = 0; i < taken_.size(); ++i) {
        const Type type = type_named(statement.modifiers[i]);
        if (taken_[i] || type == Type::none) continue;
        taken_[i] = true;
        return type;
    }
    refuse("it has no type");
}

void Selection::finish() {
    if (const std::string *left = next()) refuse("its modifier ." + *left + " is not supported");
}

const Operand &Selection::operand(size_t i) const {
    if (i >= statement.operands.size()) refuse("it has too few operands");
    return statement.operands[i];
}

void Selection::result(uint32_t Instruction::*field, const Operand &o, Width width) {
    if (o.kind == Operand::sink) return;
    const auto found = compiler_.numbers_.find(o.text);
    if (o.kind != Operand::name || found == compiler_.numbers_.end())
        refuse("its result " + o.text + " is no register");
    if (compiler_.widths_[found->second] != width)
        refuse("its result " + o.text + " is of another size");
    compiler_.refer(field, 0, found->second, false, true, false);
}

Type Selection::declared(const Operand &o) const {
    const auto found = compiler_.numbers_.find(o.text);
    if (o.kind != Operand::name || found == compiler_.numbers_.end()) return Type::none;
    return compiler_.types_[found->second];
}

const Operand &Selection::carry() const {
    static const Operand operand = [] {
        Operand o;
        o.kind = Operand::name;
        o.text = Compiler::CARRY;
        return o;
    }();
    return operand;
}

bool Selection::has(std::string_view modifier) const {
    for (size_t i = 0; i < taken_.size(); ++i)
        if (!taken_[i] && statement.modifiers[i] == modifier) return true;
    return false;
}

uint64_t Selection::constant(size_t i) const {
    if (operand(i).kind != Operand::integer) refuse("an operand must be a whole number");
    return operand(i).bits;
}

bool Selection::is_parameter(const Operand &address) const {
    return compiler_.parameters_.count(address.text) && !compiler_.variables_.count(address.text);
}

bool Selection::is_local(const Operand &address) const {
    return compiler_.variables_.count(address.text);
}

void Selection::more_parameter(const Operand &address, uint32_t offset, Type type, Type held) {
    const uint64_t at = compiler_.parameters_.at(address.text) + address.bits + offset;
    if (at + bytes_of(type) > compiler_.function_.parameter_bytes)
        refuse("it reads past the parameters");
    compiler_.more_.push_back(NO_OPERAND);
    const bool wide = width_of(held) == Width::pair;
    const uint32_t index = compiler_.preset({Preset::parameter, type, wide, at, 0});
    compiler_.refer(nullptr, compiler_.more_.size() - 1, index, true, false, false);
}

void Selection::strong_access() { compiler_.program_->strong = instruction.strong = true; }

void Selection::shared_access(uint32_t bytes) {
    uint32_t &smallest = compiler_.program_->smallest_shared_access;
    smallest = std::min(smallest, bytes);
}

// Returns the type that the base was read as.
Type Selection::address(uint32_t Instruction::*field, int64_t Instruction::*offset, size_t i) {
    Operand base = operand(i);
    if (base.kind != Operand::address) refuse("an operand must be an address");
    base.kind = base.text.empty() ? Operand::integer : Operand::name;
    const Type declared_type = declared(base);
    if (declared_type != Type::none) {
        instruction.*offset = int64_t(base.bits);
        base.bits = 0;
    }
    const bool word = declared_type != Type::none && width_of(declared_type) == Width::word;
    const Type type = word ? Type::b32 : Type::b64;
    source(field, base, type);
    return type;
}

void Selection::address(size_t i) {
    const Type type = address(&Instruction::a, &Instruction::immediate, i);
    instruction.wide_address = type == Type::b64;
    instruction.site = compiler_.program_->memory_sites++;
}

void Selection::copy_source(size_t i) {
    if (address(&Instruction::b, &Instruction::offset_b, i) != Type::b64)
        refuse("the address of its source must have 64 bits");
}

void Selection::counts_copies() { compiler_.program_->copies = true; }

void Selection::run(Handlers handlers) {
    instruction.run[0] = handlers.full;
    instruction.run[1] = handlers.partial;
    instruction.body = handlers;
}

void Selection::run_unguarded(Handlers handlers) {
    instruction.run[0] = handlers.full;
    instruction.run[1] = handlers.partial;
}

void Selection::refuse(const std::string &why) const { compiler_.refuse(statement, why); }

void Selection::more_result(const Operand &o, Width width) {
    compiler_.more_.push_back(NO_OPERAND);
    if (o.kind == Operand::sink) return;
    const size_t more = compiler_.more_.size() - 1;
    result(nullptr, o, width);
    compiler_.references_.back().more = more;
}

void Selection::more_source(const Operand &o, Type type) {
    compiler_.more_.push_back(NO_OPERAND);
    const size_t more = compiler_.more_.size() - 1;
    source(nullptr, o, type);
    compiler_.references_.back().more = more;
}

void Selection::source(uint32_t Instruction::*field, const Operand &o, Type type) {
    const bool wide = width_of(type) == Width::pair;
    Preset wanted{Preset::constant, Type::u32, wide, o.bits, 0};
    switch (o.kind) {
    case Operand::integer:
        if (type == Type::pred) wanted.bits = o.bits ? ALL : 0;
        if (bytes_of(type) == 2) wanted.bits &= 0xffff;
        if (bytes_of(type) == 4) wanted.bits &= 0xffffffff;
        break;
    case Operand::float32:
        break;
    case Operand::float64:
        if (type == Type::f32) wanted.bits = bits_as<uint32_t>(float(bits_as<double>(o.bits)));
        break;
    case Operand::name: {
        const auto found = compiler_.numbers_.find(o.text);
        if (found != compiler_.numbers_.end()) {
            if (compiler_.widths_[found->second] != width_of(type))
                refuse("its operand " + o.text + " is of another size than its type");
            compiler_.refer(field, 0, found->second, false, false, o.negated);
            return;
        }
        if (const Special *special = special_named(o.text)) {
            if (wide) refuse("its operand " + o.text + " has 32 bits, not 64");
            wanted.kind = special->kind;
            wanted.bits = 0;
        } else {
            wanted.bits = compiler_.address_of(*this, o.text) + o.bits;
        }
        break;
    }
    default:
        refuse("an operand is of a kind that it does not take");
    }
    compiler_.refer(field, 0, compiler_.preset(wanted), true, false, false);
}

}  // namespace gpu
