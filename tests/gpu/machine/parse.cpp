// The parser of PTX text.
#include <array>
#include <cstring>

#include "scanner.h"

namespace gpu {
namespace {

class Parser : Scanner {
  public:
    using Scanner::Scanner;

    Syntax parse() {
        if (text_.find(".version") == text_.npos) fail("this is no PTX text: it has no .version");
        for (skip(); at_ < text_.size(); skip()) module_item();
        return std::move(syntax_);
    }

  private:
    // ---- module scope -----------------------------------------------------------------------

    void module_item() {
        const std::string first = directive();
        if (first == "version") {
            number();
        } else if (first == "target") {
            skip();
            syntax_.target = name();
            while (take(',')) name();
        } else if (first == "address_size") {
            if (integer() != 64) fail("only 64-bit addresses are supported");
        } else if (first == "file") {
            const uint64_t index = integer();
            syntax_.files[uint32_t(index)] = quoted();
            while (take(',')) integer();  // time and size
        } else if (first == "section") {
            skip_braces();
        } else if (first == "pragma") {
            quoted();
            expect(';');
        } else {
            linked_item(first);
        }
    }

    void skip_braces() {
        while (at_ < text_.size() && look() != '{') line_ += text_[at_++] == '\n';
        expect('{');
        for (int depth = 1; depth > 0; ++at_) {
            if (at_ >= text_.size()) fail("a brace is not closed");
            line_ += look() == '\n';
            depth += look() == '{';
            depth -= look() == '}';
        }
    }

    void linked_item(std::string first) {
        bool external = false;
        while (first == "visible" || first == "extern" || first == "weak" || first == "common") {
            external = external || first == "extern";
            first = directive();
        }
        if (first == "entry" || first == "func") {
            function(first == "entry");
        } else if (first == "alias") {
            fail("the directive .alias is not supported");
        } else {
            declarations(first, external, syntax_.variables);
        }
    }

    static bool space_named(const std::string &word, Space &space) {
        if (word == "global")
            space = Space::global;
        else if (word == "const")
            space = Space::constant;
        else if (word == "shared")
            space = Space::shared;
        else if (word == "local")
            space = Space::local;
        else if (word == "param")
            space = Space::parameter;
        else
            return false;
        return true;
    }

    // `.global .align 4 .f32 x[4] = {...}, y;` from after its first word on.
    void declarations(const std::string &first, bool external, std::vector<Declaration> &into) {
        Declaration common;
        if (!space_named(first, common.space)) fail("unknown directive ." + first);
        common.external = external;
        uint32_t vector = 1;
        common.alignment = 0;
        attributes(common, vector);
        do {
            Declaration one = common;
            one.name = scoped_variable(name());
            extent(one, vector);
            if (take('=')) initialiser(one);
            into.push_back(std::move(one));
        } while (take(','));
        expect(';');
    }

    // `.align 4 .v2 .f32`
    void attributes(Declaration &d, uint32_t &vector) {
        bool typed = false;
        for (skip(); look() == '.'; skip()) {
            const std::string word = directive();
            if (word == "align")
                d.alignment = uint32_t(integer());
            else if (word == "v2" || word == "v4")
                vector = uint32_t(word[1] - '0');
            else if (word == "ptr")
                pointer_attributes();
            else if (type_named(word) != Type::none)
                d.type = type_named(word), typed = true;
            else if (word == "attribute")
                skip_parentheses();
            else
                fail("unknown attribute ." + word);
        }
        if (!typed) fail("a declaration without a type");
        if (d.alignment == 0) d.alignment = bytes_of(d.type) * vector;
    }

    // `.ptr .global .align 4` of a parameter says what the parameter points to.
    void pointer_attributes() {
        for (skip(); look() == '.'; skip()) {
            const std::string word = directive();
            Space ignored;
            if (word == "align")
                integer();
            else if (!space_named(word, ignored))
                fail("unknown attribute ." + word + " of a pointer");
        }
    }

    void skip_parentheses() {
        expect('(');
        while (at_ < text_.size() && look() != ')') ++at_;
        expect(')');
    }

    void extent(Declaration &d, uint32_t vector) {
        uint64_t elements = vector;
        for (bool open = false; take('[');) {
            if (take(']')) {
                elements = open ? elements : 0;  // sized by its initial values, or by the launch
                open = true;
                continue;
            }
            elements *= integer();
            expect(']');
        }
        d.bytes = elements * bytes_of(d.type);
    }

    void initialiser(Declaration &d) {
        if (!take('{')) {
            element(d);
        } else {
            elements(d);
        }
        d.bytes = std::max<uint64_t>(d.bytes, d.initial.size());
        d.initial.resize(d.bytes);
    }

    void elements(Declaration &d) {
        if (take('}')) return;
        do {
            if (take('{'))
                elements(d);
            else
                element(d);
        } while (take(','));
        expect('}');
    }

    void element(Declaration &d) {
        const uint32_t bytes = bytes_of(d.type);
        uint64_t bits = 0;
        if (at_number()) {
            bits = as_type(number(), d.type);
        } else {
            std::string named = name();
            const bool generic = named == "generic" && take('(');
            if (generic) named = name();
            if (generic) expect(')');
            const uint64_t added = take('+') ? integer() : 0;
            d.pointers.push_back({d.initial.size(), named, added});
        }
        for (uint32_t i = 0; i < bytes; ++i)
            d.initial.push_back(i < 8 ? uint8_t(bits >> 8 * i) : 0);
    }

    static uint64_t as_type(const Operand &number, Type type) {
        if (number.kind != Operand::float64 || type == Type::f64) return number.bits;
        double value;
        memcpy(&value, &number.bits, 8);
        const float narrow = float(value);
        uint32_t bits;
        memcpy(&bits, &narrow, 4);
        return type == Type::f32 ? bits : number.bits;
    }

    // ---- functions --------------------------------------------------------------------------

    void function(bool entry) {
        function_ = FunctionSyntax();
        function_.entry = entry;
        function_.ptx_line = line_;
        scopes_.assign(1, 0);
        scope_count_ = 0;
        names_.clear();
        place_ = Place();
        places_.clear();
        skip();
        if (look() == '(') parameters(function_.results);
        function_.name = name();
        skip();
        if (look() == '(') parameters(function_.parameters);
        for (skip(); look() == '.'; skip()) performance(directive());
        if (!take(';')) {
            expect('{');
            function_.defined = true;
            body();
        }
        syntax_.functions.push_back(std::move(function_));
    }

    void parameters(std::vector<Declaration> &into) {
        expect('(');
        if (take(')')) return;
        do {
            Declaration one;
            uint32_t vector = 1;
            const std::string space = directive();
            if (!space_named(space, one.space) && space != "reg")
                fail("unknown state space ." + space + " of a parameter");
            one.space = Space::parameter;
            one.alignment = 0;
            attributes(one, vector);
            skip();
            one.name = name();
            extent(one, vector);
            into.push_back(std::move(one));
        } while (take(','));
        expect(')');
    }

    void performance(const std::string &word) {
        if (word == "noreturn") return;
        if (word == "pragma") {
            quoted();
            take(';');
            return;
        }
        std::vector<uint64_t> values;
        if (at_number()) do
                values.push_back(integer());
            while (take(','));
        if (word == "maxntid" || word == "reqntid") {
            function_.maximum_threads = 1;
            for (uint64_t value : values) function_.maximum_threads *= uint32_t(value);
        } else if (word == "minnctapersm") {
            function_.minimum_blocks = uint32_t(values.at(0));
        } else if (word != "maxnreg" && word != "maxnctapersm") {
            fail("unknown directive ." + word + " of a function");
        }
    }

    void body() {
        for (int depth = 1; depth > 0;) {
            skip();
            if (at_ >= text_.size()) fail("the body of " + function_.name + " does not end");
            if (take('{')) {
                ++depth;
                scopes_.push_back(++scope_count_);
            } else if (take('}')) {
                --depth;
                scopes_.pop_back();
            } else if (look() == '.') {
                body_directive(directive());
            } else {
                statement_or_label();
            }
        }
    }

    void body_directive(const std::string &word) {
        if (word == "reg") {
            registers();
        } else if (word == "loc") {
            location();
        } else if (word == "pragma") {
            quoted();
            expect(';');
        } else {
            declarations(word, false, function_.variables);
        }
    }

    using Position = std::array<uint64_t, 3>;  // file, line, column

    Position position() {
        const uint64_t file = integer(), line = integer(), column = integer();
        return {file, line, column};
    }

    // `1 24 9`, or `3 79 5, function_name $L__info_string0, inlined_at 2 20 9`, where the place
    // that something was inlined at is one that came before, itself perhaps inlined.
    void location() {
        const Position at = position();
        std::shared_ptr<const Place> inlined_at;
        while (take(',')) {
            if (name() == "function_name") {
                name();
                if (take('+')) integer();
            } else {
                inlined_at = places_[position()];
            }
        }
        if (at[1] == 0) return;  // of no line: the last one is nearest
        place_ = Place{uint32_t(at[0]), uint32_t(at[1]), inlined_at};
        places_[at] = std::make_shared<const Place>(place_);
    }

    void registers() {
        std::string kind = directive();
        while (kind == "v2" || kind == "v4") fail("vector registers are not supported");
        const Type type = type_named(kind);
        if (type == Type::none) fail("unknown type ." + kind + " of a register");
        do {
            const std::string base = name();
            if (take('<')) {
                const uint64_t count = integer();
                expect('>');
                for (uint64_t i = 0; i < count; ++i) define(base + std::to_string(i), type);
            } else {
                define(base, type);
            }
        } while (take(','));
        expect(';');
    }

    void define(const std::string &plain, Type type) {
        const std::string full = own(plain);
        names_[plain].push_back({scopes_.back(), full});
        function_.registers[full] = type;
    }

    std::string scoped_variable(const std::string &plain) {
        if (scopes_.size() < 2) return plain;
        const std::string full = own(plain);
        names_[plain].push_back({scopes_.back(), full});
        return full;
    }

    std::string own(const std::string &plain) const {
        return scopes_.back() == 0 ? plain : plain + "'" + std::to_string(scopes_.back());
    }

    // The full name of what a name means here: that of the innermost scope that has it.
    std::string resolved(const std::string &plain) const {
        const auto found = names_.find(plain);
        if (found == names_.end()) return plain;
        for (size_t depth = scopes_.size(); depth-- > 0;)
            for (const auto &[scope, full] : found->second)
                if (scope == scopes_[depth]) return full;
        return plain;
    }

    void statement_or_label() {
        Statement s;
        s.ptx_line = line_;
        s.place = place_;
        if (take('@')) {
            s.guard_negated = take('!');
            s.guard = resolved(name());
            skip();
        }
        const std::string first = word();
        if (first.empty()) fail("expected an instruction, found " + found());
        if (s.guard.empty() && take(':')) return label(first);
        s.opcode = s.text = first;
        while (look() == '.') {
            ++at_;
            s.modifiers.push_back(word());
            s.text += "." + s.modifiers.back();
        }
        while (!take(';')) {
            s.operands.push_back(operand());
            skip();
            if (!take(',') && look() != ';' && look() != '(' && s.opcode != "call")
                fail("expected ',' or ';' after an operand of " + s.text + ", found " + found());
        }
        function_.statements.push_back(std::move(s));
    }

    void label(const std::string &named) {
        skip();
        if (text_.compare(at_, 14, ".branchtargets") == 0) {
            directive();
            std::vector<std::string> &labels = function_.targets[named];
            do labels.push_back(name());
            while (take(','));
            expect(';');
        } else if (text_.compare(at_, 14, ".callprototype") == 0) {
            fail("calls through a pointer (.callprototype) are not supported");
        } else {
            function_.labels[named] = function_.statements.size();
        }
    }

    Operand operand() {
        skip();
        Operand result;
        if (take('{') || take('(')) {
            const char closing = text_[at_ - 1] == '{' ? '}' : ')';
            result.kind = closing == '}' ? Operand::vector : Operand::list;
            while (!take(closing)) {
                result.parts.push_back(operand());
                take(',');
            }
            return result;
        }
        if (take('[')) {
            result = address();
            expect(']');
            return result;
        }
        if (at_number()) return number();
        result.negated = take('!');
        result.kind = Operand::name;
        result.text = resolved(name());
        if (result.text == "_") result.kind = Operand::sink;
        if (take('|')) result.parts.push_back(operand());
        if (take('+')) result.bits = integer();
        return result;
    }

    Operand address() {
        Operand result;
        result.kind = Operand::address;
        skip();
        if (at_number()) {
            result.bits = integer();
        } else {
            result.text = resolved(name());
            skip();
            if (take('+') || look() == '-') result.bits = integer();
        }
        return result;
    }

    Syntax syntax_;

    // Of the function being parsed.
    FunctionSyntax function_;
    Place place_;
    std::map<Position, std::shared_ptr<const Place>> places_;  // of the function so far
    std::vector<int> scopes_;                                  // the open ones; 0 is the body
    int scope_count_ = 0;
    std::map<std::string, std::vector<std::pair<int, std::string>>> names_;  // (scope, full name)
};

}  // namespace

Syntax parse_ptx(std::string_view text) { return Parser(text).parse(); }

}  // namespace gpu
