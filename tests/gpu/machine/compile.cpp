#include "compile.h"

#include <algorithm>
#include <cstring>
#include <filesystem>

#include "error.h"
#include "flow.h"
#include "lanes.h"
#include "registers.h"
#include "selection.h"
#include "warp.h"
#include "block.h"

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

constexpr char CARRY[] = "carry";  // no name of PTX's registers, which begin with %

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

class Compiler {
  public:
    Compiler(const Syntax &syntax, const FunctionSyntax &kernel, const ModuleScope &scope,
             Function &function)
        : kernel_(kernel), scope_(scope), function_(function), program_(new Program),
          flat_(flattened(syntax, kernel)), blocks_(flow_of(flat_)) {
        program_->kernel = kernel.name;
        for (const auto &[number, name] : syntax.files) program_->files[number] = relative(name);
    }

    void compile() {
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

    [[noreturn]] void refuse(const Statement &s, const std::string &why) const {
        std::string place = "PTX line " + std::to_string(s.ptx_line);
        const auto file = program_->files.find(s.place.file);
        if (s.place.line && file != program_->files.end())
            place += " (" + file->second + ":" + std::to_string(s.place.line) + ")";
        throw Error(place + " of kernel " + kernel_.name + ": " + s.text + ": " + why);
    }

  private:
    friend class Selection;

    // What an operand of an instruction refers to until registers have places: a field, or the
    // `more`-th further operand.
    struct Reference {
        uint32_t instruction;
        uint32_t Instruction::*field;
        size_t more;
        uint32_t reg;  // or the preset's index
        bool preset, writes, negated;
    };

    void place_parameters() {
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
    void place_variables() {
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

    void make_instructions() {
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

    void make_instruction(const Statement &statement) {
        const auto select = selectors().find(statement.opcode);
        if (select == selectors().end()) refuse(statement, "this instruction is not supported");
        at_ = uint32_t(program_->code.size());
        more_.clear();
        Instruction instruction;
        Selection selection(*this, statement, instruction);
        if (!statement.guard.empty()) guard(statement, instruction);
        select->second(selection);
        selection.finish();
        if (!more_.empty()) {
            program_->more.push_back(more_);
            instruction.more = program_->more.back().data();
        }
        program_->code.push_back(instruction);
        program_->statements.push_back(&statement);
    }

    void guard(const Statement &statement, Instruction &) {
        const auto found = numbers_.find(statement.guard);
        if (found == numbers_.end() || widths_[found->second] != Width::bit)
            refuse(statement, statement.guard + " is no predicate");
        refer(&Instruction::guard, 0, found->second, false, false, statement.guard_negated);
    }

    void refer(uint32_t Instruction::*field, size_t more, uint32_t reg, bool preset, bool writes,
               bool negated) {
        references_.push_back({at_, field, more, reg, preset, writes, negated});
    }

    uint32_t preset(Preset wanted) {
        for (uint32_t i = 0; i < program_->presets.size(); ++i) {
            const Preset &p = program_->presets[i];
            if (p.kind == wanted.kind && p.type == wanted.type && p.wide == wanted.wide &&
                p.bits == wanted.bits)
                return i;
        }
        program_->presets.push_back(wanted);
        return uint32_t(program_->presets.size() - 1);
    }

    // What a name means as a number: a variable's address, generic where it is global.
    uint64_t address_of(const Selection &selection, const std::string &name) const {
        if (const auto own = variables_.find(name); own != variables_.end()) return own->second;
        if (const auto own = parameters_.find(name); own != parameters_.end()) return own->second;
        if (const auto global = scope_.addresses.find(name); global != scope_.addresses.end())
            return global->second;
        selection.refuse("its operand " + name + " is not defined");
    }

    // Sets the targets of branches, and where their paths reconverge.
    void connect() {
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
    void drop_padding() {
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

    void place_registers() {
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

    const FunctionSyntax &kernel_;
    const ModuleScope &scope_;
    Function &function_;
    std::shared_ptr<Program> program_;
    Flat flat_;
    std::vector<BasicBlock> blocks_;
    std::vector<uint32_t> first_instruction_;  // of every block, and the end

    std::map<std::string, uint64_t> parameters_;  // offsets
    std::map<std::string, uint32_t> variables_;   // offsets in shared or local memory
    std::map<std::string, uint32_t> numbers_;     // of registers
    std::vector<Type> types_;
    std::vector<Width> widths_;
    std::vector<Reference> references_;

    uint32_t at_ = 0;  // the instruction being made
    std::vector<uint32_t> more_;
};

void compile(const Syntax &syntax, const FunctionSyntax &kernel, const ModuleScope &scope,
             Function &function) {
    Compiler(syntax, kernel, scope, function).compile();
}

// ---- Selection ---------------------------------------------------------------------------------

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
        o.text = CARRY;
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
