// How a statement becomes an instruction: what the families of instructions share.
#pragma once

#include <functional>
#include <initializer_list>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "instruction.h"

namespace gpu {

class Compiler;

// One statement being made an instruction. Every modifier must be taken: an unknown one is an
// error.
class Selection {
  public:
    Selection(Compiler &compiler, const Statement &statement, Instruction &instruction);

    const Statement &statement;
    Instruction &instruction;

    // ---- modifiers
    bool take(std::string_view modifier);
    // Takes whichever of these is there; returns its index, -1 if none is.
    int take_one(std::initializer_list<const char *> modifiers);
    Type take_type();  // the next modifier must be a type
    bool next_is_type() const;
    bool has(std::string_view modifier) const;  // not yet taken
    const std::string *next() const;  // the first modifier not yet taken, nullptr if none is left
    void finish();                    // throws if a modifier is left

    // ---- operands
    size_t count() const { return statement.operands.size(); }
    const Operand &operand(size_t i) const;
    void result(uint32_t Instruction::*field, const Operand &operand, Width width);
    void source(uint32_t Instruction::*field, const Operand &operand, Type type);
    void result(uint32_t Instruction::*field, size_t i, Type type) {
        result(field, operand(i), width_of(type));
    }
    void source(uint32_t Instruction::*field, size_t i, Type type) {
        source(field, operand(i), type);
    }
    void more_result(const Operand &operand, Width width);
    void more_source(const Operand &operand, Type type);
    // The type that a register was declared with; Type::none of what is no register.
    Type declared(const Operand &operand) const;
    const Operand &carry() const;       // the condition code, a predicate of the machine's own
    uint64_t constant(size_t i) const;  // an operand that must be an integer
    bool is_parameter(const Operand &address) const;  // [a parameter of the kernel + offset]
    bool is_local(const Operand &address) const;      // [a variable of the thread's own + offset]
    // A parameter's bytes from an offset on, of a type, as a register of type `held` holds them.
    void more_parameter(const Operand &address, uint32_t offset, Type type, Type held);
    void strong_access();
    void shared_access(uint32_t bytes);  // the program accesses shared memory by so many bytes

    // The address [base+offset] of the access: base to `a`, offset to `immediate`.
    void address(size_t i);
    // The source of an asynchronous copy: base to `b`, offset to `offset_b`.
    void copy_source(size_t i);
    // The program has asynchronous copies, or counts groups of them though it has none.
    void counts_copies();

    void run(Handlers handlers);
    void run_unguarded(Handlers handlers);  // the handlers look at the guard themselves
    [[noreturn]] void refuse(const std::string &why) const;

  private:
    Type address(uint32_t Instruction::*base, int64_t Instruction::*offset, size_t i);

    Compiler &compiler_;
    std::vector<bool> taken_;
};

// Opcodes such as add and min exist for integers and for floating-point numbers. Selects the latter
// and returns true, or changes nothing and returns false.
bool select_floating(Selection &);

// mov from a clock.
void select_clock(Selection &, Type);

using Select = void (*)(Selection &);
using Selectors = std::map<std::string_view, Select>;  // by opcode

// Each family of instructions adds its own.
void add_integer(Selectors &);
void add_floating(Selectors &);
void add_logic(Selectors &);
void add_bits(Selectors &);
void add_compare(Selectors &);
void add_convert(Selectors &);
void add_move(Selectors &);
void add_memory(Selectors &);
void add_atomics(Selectors &);
void add_copies(Selectors &);
void add_control(Selectors &);
void add_barriers(Selectors &);
void add_warp(Selectors &);
void add_matrix(Selectors &);
void add_special(Selectors &);

}  // namespace gpu
