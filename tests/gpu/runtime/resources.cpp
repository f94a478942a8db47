// Registers and memory of kernels, as NVIDIA's assembler reports them: nvJitLink, a wheel, has it.
#include <dlfcn.h>

#include <algorithm>
#include <cctype>
#include <cstdint>
#include <cstdlib>
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

// The number before some words of a line; of the words' first place, if they are there.
bool read_before(const std::string &line, const std::string &words, int &number) {
    const size_t end = line.find(words);
    if (end == std::string::npos) return false;
    size_t begin = end;
    while (begin > 0 && std::isdigit(static_cast<unsigned char>(line[begin - 1]))) --begin;
    if (begin == end) return false;
    number = std::stoi(line.substr(begin, end - begin));
    return true;
}

// Reads what follows each "Function properties for name", of the compiler, and each "Function
// properties for 'name':", of the linker, which comes later.
std::map<std::string, Resources> read(const std::string &report) {
    const std::string heading = "Function properties for ";
    std::map<std::string, Resources> found;
    std::istringstream lines(report);
    std::string line, name;
    while (std::getline(lines, line)) {
        const size_t begin = line.find(heading);
        int stored, loaded;
        if (begin != std::string::npos) {
            name = line.substr(begin + heading.size());
            name.erase(std::remove(name.begin(), name.end(), '\''), name.end());
            name = name.substr(0, name.find(':'));
        } else if (read_before(line, " bytes spill stores", stored) &&
                   read_before(line, " bytes spill loads", loaded)) {
            found[name].spilled = stored + loaded;
        } else if (line.find("Used ") != std::string::npos) {
            // The linker's shared memory has the system's part in it: the compiler's counts.
            read_before(line, " bytes smem", found[name].shared);
        } else if (line.find("used ") != std::string::npos) {
            read_before(line, " registers", found[name].registers);
            read_before(line, " stack", found[name].local);
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
