#include "compile.h"

#include <algorithm>
#include <filesystem>

#include "block.h"
#include "compiler.h"
#include "error.h"
#include "registers.h"
#include "selection.h"
#include "warp.h"

namespace gpu {
namespace {

const Selectors &selectors() {
    static const Selectors all = [] {
        Selectors s;
        add_integer(s), add_floating(s), add_logic(s), add_bits(s), add_compare(s), add_convert(s);
        add_move(s), add_memory(s), add_atomics(s), add_copies(s), add_control(s), add_barriers(s);
        add_warp(s), add_matrix(s), add_special(s);
        return s;
    }();
    return all;
}

// A file's name as seen from the current folder, where it is inside.
std::string relative(const std::string &name) {
    const std::string folder = std::filesystem::current_path().string() + "/";
    return name.compare(0, folder.size(), folder) == 0 ? name.substr(folder.size()) : name;
}

uint32_t aligned(uint64_t offset, uint64_t alignment) {
    return uint32_t((offset + alignment - 1) / alignment * alignment);
}

const Instruction *join(Warp &w, const Instruction &i) { return reconverge(w, i); }

const Instruction *guarded(Warp &w, const Instruction &i) {
    const uint32_t all = w.active;
    w.active &= w.bits(i.guard);
    if (w.active) (w.active == ALL ? i.body.full : i.body.partial)(w, i);
    w.active = all;
    return &i + 1;
}

}  // namespace

Compiler::Compiler(const Syntax &syntax, const FunctionSyntax &kernel, const ModuleScope &scope,
                   Function &function)
    : kernel_(kernel), scope_(scope), function_(function), program_(new Program),
      flat_(flattened(syntax, kernel)), blocks_(flow_of(flat_)) {
    program_->kernel = kernel.name;
    for (const auto &[number, name] : syntax.files) program_->files[number] = relative(name);
}

void Compiler::compile() {
    place_parameters();
    place_variables();
    flat_.registers[CARRY] = Type::pred;
    for (const auto &[name, type] : flat_.registers) {
        numbers_[name] = uint32_t(widths_.size());
        types_.push_back(type);
        widths_.push_back(width_of(type));
    }
    make_instructions();
    connect();
    drop_padding();
    place_registers();
    program_->text = std::move(flat_.statements);
    for (Instruction &i : program_->code)
        if (i.guard != NO_OPERAND && i.body.full) i.run[0] = i.run[1] = guarded;
    function_.static_shared = program_->static_shared;
    function_.local_bytes = program_->local_bytes;
    function_.maximum_threads = kernel_.maximum_threads;
    function_.minimum_blocks = kernel_.minimum_blocks;
    function_.program = std::move(program_);
}

void Compiler::refuse(const Statement &s, const std::string &why) const {
    std::string place = "PTX line " + std::to_string(s.ptx_line);
    const auto file = program_->files.find(s.place.file);
    if (s.place.line && file != program_->files.end())
        place += " (" + file->second + ":" + std::to_string(s.place.line) + ")";
    throw Error(place + " of kernel " + kernel_.name + ": " + s.text + ": " + why);
}

void Compiler::place_parameters() {
    uint64_t offset = 0;
    for (const Declaration &p : kernel_.parameters) {
        offset = aligned(offset, p.alignment);
        parameters_[p.name] = offset;
        function_.parameters.push_back({uint32_t(offset), uint32_t(p.bytes), p.alignment});
        offset += p.bytes;
    }
    function_.parameter_bytes = uint32_t(offset);
}

// Shared variables one after the other, each that the kernel names; then the dynamic array.
void Compiler::place_variables() {
    std::vector<const Declaration *> shared;
    for (const Declaration &d : flat_.variables) {
        if (d.space == Space::shared) {
            shared.push_back(&d);
        } else {
            program_->local_bytes = aligned(program_->local_bytes, d.alignment);
            variables_[d.name] = program_->local_bytes;
            program_->local_bytes += uint32_t(d.bytes);
        }
    }
    program_->local_bytes = aligned(program_->local_bytes, 16);
    std::map<std::string, bool> named;
    const auto note = [&](const Operand &operand, const auto &self) -> void {
        named[operand.text] = true;
        for (const Operand &part : operand.parts) self(part, self);
    };
    for (const Statement &s : flat_.statements)
        for (const Operand &operand : s.operands) note(operand, note);
    for (const auto &[name, declaration] : scope_.shared)
        if (named.count(name)) shared.push_back(declaration);
    uint32_t dynamic_alignment = 16;
    for (const Declaration *d : shared) {
        if (d->external) {
            dynamic_alignment = std::max(dynamic_alignment, d->alignment);
            continue;
        }
        if (variables_.count(d->name)) continue;  // of a function called twice
        program_->static_shared = aligned(program_->static_shared, d->alignment);
        variables_[d->name] = program_->static_shared;
        program_->static_shared += uint32_t(d->bytes);
    }
    for (const Declaration *d : shared)
        if (d->external)
            variables_[d->name] = program_->static_shared =
                aligned(program_->static_shared, dynamic_alignment);
}

void Compiler::make_instructions() {
    for (size_t b = 0; b < blocks_.size(); ++b) {
        first_instruction_.push_back(uint32_t(program_->code.size()));
        if (blocks_[b].is_join) {
            program_->code.emplace_back();
            program_->code.back().run[0] = program_->code.back().run[1] = join;
            program_->statements.push_back(nullptr);
        }
        for (uint32_t s = blocks_[b].begin; s < blocks_[b].end; ++s)
            make_instruction(flat_.statements[s]);
    }
    first_instruction_.push_back(uint32_t(program_->code.size()));
}

void Compiler::make_instruction(const Statement &statement) {
    const auto select = selectors().find(statement.opcode);
    if (select == selectors().end()) refuse(statement, "this instruction is not supported");
    at_ = uint32_t(program_->code.size());
    more_.clear();
    Instruction instruction;
    Selection selection(*this, statement, instruction);
    if (!statement.guard.empty()) guard(statement);
    select->second(selection);
    selection.finish();
    if (!more_.empty()) {
        program_->more.push_back(more_);
        instruction.more = program_->more.back().data();
    }
    program_->code.push_back(instruction);
    program_->statements.push_back(&statement);
}

void Compiler::guard(const Statement &statement) {
    const auto found = numbers_.find(statement.guard);
    if (found == numbers_.end() || widths_[found->second] != Width::bit)
        refuse(statement, statement.guard + " is no predicate");
    refer(&Instruction::guard, 0, found->second, false, false, statement.guard_negated);
}

void Compiler::refer(uint32_t Instruction::*field, size_t more, uint32_t reg, bool preset,
                     bool writes, bool negated) {
    references_.push_back({at_, field, more, reg, preset, writes, negated});
}

uint32_t Compiler::preset(Preset wanted) {
    for (uint32_t i = 0; i < program_->presets.size(); ++i) {
        const Preset &p = program_->presets[i];
        if (p.kind == wanted.kind && p.type == wanted.type && p.wide == wanted.wide &&
            p.bits == wanted.bits)
            return i;
    }
    program_->presets.push_back(wanted);
    return uint32_t(program_->presets.size() - 1);
}

uint64_t Compiler::address_of(const Selection &selection, const std::string &name) const {
    if (const auto own = variables_.find(name); own != variables_.end()) return own->second;
    if (const auto own = parameters_.find(name); own != parameters_.end()) return own->second;
    if (const auto global = scope_.addresses.find(name); global != scope_.addresses.end())
        return global->second;
    selection.refuse("its operand " + name + " is not defined");
}

// Sets the targets of branches, and where their paths reconverge.
void Compiler::connect() {
    const auto block_of = [&](uint32_t statement) {
        for (size_t b = 0; b < blocks_.size(); ++b)
            if (blocks_[b].begin == statement) return b;
        return blocks_.size() - 1;
    };
    for (size_t b = 0; b < blocks_.size(); ++b) {
        Instruction &last = program_->code[first_instruction_[b + 1] - 1];
        if (blocks_[b].join >= 0)
            last.join = &program_->code[first_instruction_[size_t(blocks_[b].join)]];
        const Statement &statement = flat_.statements[blocks_[b].end - 1];
        const auto first = [&](const std::string &label) {
            return &program_->code[first_instruction_[block_of(flat_.labels.at(label))]];
        };
        if (statement.opcode == "bra") last.target = first(statement.operands[0].text);
        if (statement.opcode == "brx")
            for (const std::string &label : flat_.targets.at(statement.operands[1].text))
                program_->tables[program_->index(last)].push_back(first(label));
    }
}

// A load of a whole struct also reads the padding behind its members, which is never written,
// into registers that are never read.
void Compiler::drop_padding() {
    std::vector<bool> read(widths_.size());
    for (const Reference &r : references_)
        if (!r.preset && !r.writes) read[r.reg] = true;
    std::map<uint32_t, size_t> used;  // elements of a load, up to the last that is read
    for (const Reference &r : references_)
        if (!r.preset && !r.field && r.writes && read[r.reg])
            used[r.instruction] = std::max(used[r.instruction], r.more + 1);
    for (const auto &[number, elements] : used) {
        Instruction &i = program_->code[number];
        if (i.needed != Instruction().needed) i.needed = uint8_t(i.needed / i.count * elements);
    }
}

void Compiler::place_registers() {
    uint32_t reserved = 0;
    for (Preset &p : program_->presets) {
        uint32_t &end = p.of_warp() ? reserved : program_->common_bytes;
        p.place = end;
        end += (p.wide ? 8 : 4) * LANES;
    }
    std::vector<RegisterUse> uses;
    for (const Reference &r : references_)
        if (!r.preset) {
            // A guarded write keeps what the other lanes have.
            const bool keeps = r.writes && !program_->statements[r.instruction]->guard.empty();
            uses.push_back({r.instruction, r.reg, !r.writes || keeps, r.writes});
        }
    std::vector<Stretch> stretches;
    for (size_t b = 0; b < blocks_.size(); ++b)
        stretches.push_back(
            {first_instruction_[b], first_instruction_[b + 1], blocks_[b].successors});
    const Allocation allocation = allocate_registers(widths_, uses, stretches, reserved);
    program_->register_bytes = allocation.bytes;
    for (const Reference &r : references_) {
        uint32_t place = r.preset ? program_->presets[r.reg].place : allocation.places[r.reg];
        if (r.preset && !program_->presets[r.reg].of_warp()) place |= COMMON;
        if (r.negated) place |= NEGATED;
        Instruction &i = program_->code[r.instruction];
        if (r.field)
            i.*r.field = place;
        else
            const_cast<uint32_t *>(i.more)[r.more] = place;
    }
}

void compile(const Syntax &syntax, const FunctionSyntax &kernel, const ModuleScope &scope,
             Function &function) {
    Compiler(syntax, kernel, scope, function).compile();
}

}  // namespace gpu
