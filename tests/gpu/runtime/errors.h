// Error codes as CUDA gives them, each with a sentence on what happened.
//
// The runtime and the driver number their errors alike. CuPy asks for the text of a code when it
// raises, in the thread that failed: the text is CUDA's own, followed by the sentence.
#pragma once

#include <cuda.h>
#include <driver_types.h>

#include <stdexcept>
#include <string>

namespace gpu {

// A call that fails. Its message is one sentence, or empty where the code says it all.
struct Failure : std::runtime_error {
    explicit Failure(cudaError_t code, const std::string &sentence = {})
        : std::runtime_error(sentence), code(code) {}

    cudaError_t code;
};

// Sets the sentence that this thread gets after CUDA's text of `code` when it next asks for that.
void explain(cudaError_t code, const std::string &sentence);

}  // namespace gpu
