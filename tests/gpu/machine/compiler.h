// A kernel being compiled, and what its statements refer to.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "compile.h"
#include "flow.h"

namespace gpu {

class Selection;

class Compiler {
  public:
    Compiler(const Syntax &syntax, const FunctionSyntax &kernel, const ModuleScope &scope,
             Function &function);

    void compile();
    [[noreturn]] void refuse(const Statement &s, const std::string &why) const;

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

    void place_parameters();
    void place_variables();
    void make_instructions();
    void make_instruction(const Statement &statement);
    void guard(const Statement &statement);
    void refer(uint32_t Instruction::*field, size_t more, uint32_t reg, bool preset, bool writes,
               bool negated);
    uint32_t preset(Preset wanted);
    // What a name means as a number: a variable's address, generic where it is global.
    uint64_t address_of(const Selection &selection, const std::string &name) const;
    void connect();
    void drop_padding();
    void place_registers();

    static constexpr char CARRY[] = "carry";  // no name of PTX's registers, which begin with %

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

}  // namespace gpu
