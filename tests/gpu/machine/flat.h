// A kernel's statements in one list, the functions that it calls put in where they are called.
#pragma once

#include <deque>
#include <map>
#include <string>
#include <vector>

#include "syntax.h"

namespace gpu {

struct Flat {
    std::deque<Statement> statements;
    std::map<std::string, uint32_t> labels;  // the statement that each one precedes
    std::map<std::string, std::vector<std::string>> targets;
    std::map<std::string, Type> registers;
    std::vector<Declaration> variables;  // .shared and .local, and .param of calls as .local
};

// Throws Error where a function is not defined or calls itself.
Flat flattened(const Syntax &syntax, const FunctionSyntax &kernel);

}  // namespace gpu
