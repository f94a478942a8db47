// The characters of PTX text: names, words, strings and numbers.
#pragma once

#include <algorithm>
#include <cctype>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <string_view>

#include "error.h"
#include "syntax.h"

namespace gpu {

class Scanner {
  public:
    explicit Scanner(std::string_view text) : text_(text) {}

  protected:
    [[noreturn]] void fail(const std::string &what) const {
        throw Error("PTX line " + std::to_string(line_) + ": " + what);
    }

    char look() const { return at_ < text_.size() ? text_[at_] : '\0'; }

    void skip() {
        for (; at_ < text_.size(); ++at_) {
            if (text_[at_] == '\n') {
                ++line_;
            } else if (text_.compare(at_, 2, "//") == 0) {
                at_ = std::min(text_.find('\n', at_), text_.size()) - 1;
            } else if (text_.compare(at_, 2, "/*") == 0) {
                const size_t end = text_.find("*/", at_);
                if (end == text_.npos) fail("a comment does not end");
                for (; at_ < end; ++at_) line_ += text_[at_] == '\n';
                ++at_;
            } else if (!isspace(uint8_t(text_[at_])) && text_[at_] != '\0') {
                return;
            }
        }
    }

    bool take(char c) {
        skip();
        if (look() != c) return false;
        ++at_;
        return true;
    }

    void expect(char c) {
        if (!take(c)) fail(std::string("expected '") + c + "', found " + found());
    }

    std::string found() const {
        if (at_ >= text_.size()) return "the end of the text";
        return "'" + std::string(text_.substr(at_, text_.find_first_of("\n", at_) - at_)) + "'";
    }

    // A name: an identifier, a register such as %tid.x, or a label.
    std::string name() {
        skip();
        if (!begins_name(look())) fail("expected a name, found " + found());
        const size_t begin = at_++;
        const bool special = text_[begin] == '%';
        while (in_name(look()) ||
               (special && look() == '.' && at_ + 1 < text_.size() && in_name(text_[at_ + 1])))
            ++at_;
        return std::string(text_.substr(begin, at_ - begin));
    }

    // A word of a directive or opcode: letters, digits, underscores and "::".
    std::string word() {
        const size_t begin = at_;
        while (in_name(look()) || (text_.compare(at_, 2, "::") == 0 && ++at_)) ++at_;
        return std::string(text_.substr(begin, at_ - begin));
    }

    std::string directive() {
        skip();
        if (look() != '.') fail("expected a directive, found " + found());
        ++at_;
        return word();
    }

    std::string quoted() {
        expect('"');
        const size_t end = text_.find('"', at_);
        if (end == text_.npos) fail("a string does not end");
        const std::string content(text_.substr(at_, end - at_));
        at_ = end + 1;
        return content;
    }

    Operand number() {
        skip();
        Operand result;
        result.kind = Operand::integer;
        const bool negative = take('-');
        skip();
        const size_t begin = at_;
        const auto hexadecimal = [&](size_t digits) {
            const std::string text(text_.substr(at_ + 2, digits));
            at_ += 2 + digits;
            return std::stoull(text, nullptr, 16);
        };
        try {
            if (look() == '0' && at_ + 1 < text_.size() && strchr("fF", text_[at_ + 1])) {
                result.kind = Operand::float32;
                result.bits = hexadecimal(8) ^ (negative ? 0x80000000u : 0);
            } else if (look() == '0' && at_ + 1 < text_.size() && strchr("dD", text_[at_ + 1])) {
                result.kind = Operand::float64;
                result.bits = hexadecimal(16) ^ (negative ? uint64_t(1) << 63 : 0);
            } else {
                while (isalnum(uint8_t(look())) || look() == '.' ||
                       (strchr("+-", look()) && look() && strchr("eE", text_[at_ - 1]) &&
                        text_.compare(begin, 2, "0x") != 0))
                    ++at_;
                std::string digits(text_.substr(begin, at_ - begin));
                const bool hex = digits.compare(0, 2, "0x") == 0 || digits.compare(0, 2, "0X") == 0;
                if (!hex && digits.find_first_of(".eE") != digits.npos) {
                    result.kind = Operand::float64;
                    const double value = std::stod(digits) * (negative ? -1 : 1);
                    memcpy(&result.bits, &value, 8);
                } else {
                    while (!digits.empty() && strchr("uU", digits.back())) digits.pop_back();
                    const bool binary = digits.compare(0, 2, "0b") == 0;
                    result.bits = binary ? std::stoull(digits.substr(2), nullptr, 2)
                                         : std::stoull(digits, nullptr, 0);
                    if (negative) result.bits = -result.bits;
                }
            }
        } catch (const std::logic_error &) {
            at_ = begin;
            fail("expected a number, found " + found());
        }
        return result;
    }

    uint64_t integer() {
        const Operand result = number();
        if (result.kind != Operand::integer) fail("expected a whole number");
        return result.bits;
    }

    bool at_number() {
        skip();
        return isdigit(uint8_t(look())) || look() == '-';
    }

    std::string_view text_;
    size_t at_ = 0;
    uint32_t line_ = 1;

  private:
    static bool begins_name(char c) {
        return isalpha(uint8_t(c)) || c == '_' || c == '$' || c == '%';
    }
    static bool in_name(char c) { return isalnum(uint8_t(c)) || c == '_' || c == '$'; }
};

}  // namespace gpu
