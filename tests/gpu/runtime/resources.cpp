// Registers and memory of kernels, as NVIDIA's assembler reports them: nvJitLink, a wheel, has it.
#include <dlfcn.h>

#include <cstdint>
#include <cstdlib>
#include <regex>
#include <sstream>

#include "errors.h"
#include "module.h"

namespace gpu {
namespace {

// The few of its functions that are needed, by the names that every nvJitLink 13 has: nvJitLink.h.
struct Linker {
    using Handle = void *;
    int (*create)(Handle *, uint32_t, const char **);
    int (*add)(Handle, int, const void *, size_t, const char *);
    int (*complete)(Handle);
    int (*info_size)(Handle, size_t *);
    int (*info)(Handle, char *);
    int (*errors_size)(Handle, size_t *);
    int (*errors)(Handle, char *);
    int (*destroy)(Handle *);

    Linker() {
        const char *path = std::getenv("EMULATED_GPU_NVJITLINK");
        void *const library = dlopen(path ? path : "libnvJitLink.so.13", RTLD_NOW);
        if (!library)
            throw Failure(cudaErrorNotSupported,
                          "registers are not known without the package nvidia-nvjitlink");
        find(library, "Create", create);
        find(library, "AddData", add);
        find(library, "Complete", complete);
        find(library, "GetInfoLogSize", info_size);
        find(library, "GetInfoLog", info);
        find(library, "GetErrorLogSize", errors_size);
        find(library, "GetErrorLog", errors);
        find(library, "Destroy", destroy);
    }

  private:
    template <typename F> void find(void *library, const std::string &name, F &function) {
        const std::string symbol = "__nvJitLink" + name + "_13_0";
        function = reinterpret_cast<F>(dlsym(library, symbol.c_str()));
        if (!function) throw Failure(cudaErrorNotSupported, "nvJitLink has no function " + symbol);
    }
};

constexpr int PTX = 2;  // NVJITLINK_INPUT_PTX

std::string log(Linker::Handle handle, int (*size_of)(Linker::Handle, size_t *),
                int (*write)(Linker::Handle, char *)) {
    size_t size = 0;
    size_of(handle, &size);
    std::string text(size + 1, '\0');
    write(handle, text.data());
    return text.c_str();
}

// Reads what follows each "Function properties for name", of the compiler, and each "Function
// properties for 'name':", of the linker, which comes later.
std::map<std::string, Resources> read(const std::string &report) {
    static const std::regex kernel("Function properties for '?([^':]+)");
    static const std::regex spills(R"((\d+) bytes spill stores, (\d+) bytes spill loads)");
    // The linker's shared memory has the system's part in it: the compiler's counts.
    static const std::regex shared(R"(Used \d+ registers.*, (\d+) bytes smem)");
    static const std::regex figures(R"(used (\d+) registers.*, (\d+) stack, \d+ bytes smem)");
    std::map<std::string, Resources> found;
    std::istringstream lines(report);
    std::string line, name;
    std::smatch match;
    while (std::getline(lines, line)) {
        if (std::regex_search(line, match, kernel)) {
            name = match[1];
        } else if (std::regex_search(line, match, spills)) {
            found[name].spilled = std::stoi(match[1]) + std::stoi(match[2]);
        } else if (std::regex_search(line, match, shared)) {
            found[name].shared = std::stoi(match[1]);
        } else if (std::regex_search(line, match, figures)) {
            Resources &its = found[name];
            its.registers = std::stoi(match[1]);
            its.local = std::stoi(match[2]);
        }
    }
    return found;
}

}  // namespace

std::map<std::string, Resources> assemble(const std::string &ptx, const Device &device) {
    static const Linker linker;
    const std::string architecture =
        "-arch=sm_" + std::to_string(device.major) + std::to_string(device.minor);
    const char *options[] = {architecture.c_str(), "-verbose"};
    Linker::Handle handle = nullptr;
    const bool done = linker.create(&handle, 2, options) == 0 &&
                      linker.add(handle, PTX, ptx.data(), ptx.size(), "module") == 0 &&
                      linker.complete(handle) == 0;
    const std::string report = log(handle, linker.info_size, linker.info);
    const std::string errors = log(handle, linker.errors_size, linker.errors);
    linker.destroy(&handle);
    if (!done) throw Failure(cudaErrorInvalidPtx, "the assembler failed: " + errors);
    return read(report);
}

}  // namespace gpu
