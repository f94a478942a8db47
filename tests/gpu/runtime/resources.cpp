// Registers and memory of kernels, as NVIDIA's assembler reports them: the PTX compiler, which is in
// a wheel, assembles as NVRTC does. (nvJitLink makes relocatable code, of other registers.)
#include <dlfcn.h>

#include <cctype>
#include <cstdlib>
#include <sstream>

#include "errors.h"
#include "module.h"

namespace gpu {
namespace {

// The few of its functions that are needed, by their names in nvPTXCompiler.h.
struct Assembler {
    using Handle = void *;
    using Size = int (*)(Handle, size_t *);
    using Write = int (*)(Handle, char *);
    int (*create)(Handle *, size_t, const char *);
    int (*compile)(Handle, int, const char *const *);
    Size info_size, errors_size;
    Write info, errors;
    int (*destroy)(Handle *);

    Assembler() {
        const char *path = std::getenv("EMULATED_GPU_ASSEMBLER");
        void *const library = path ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : nullptr;
        if (!library)
            throw Failure(cudaErrorNotSupported,
                          "registers are not known without the package nvidia-nvptxcompiler");
        find(library, "Create", create);
        find(library, "Compile", compile);
        find(library, "GetInfoLogSize", info_size);
        find(library, "GetInfoLog", info);
        find(library, "GetErrorLogSize", errors_size);
        find(library, "GetErrorLog", errors);
        find(library, "Destroy", destroy);
    }

  private:
    template <typename F> void find(void *library, const std::string &name, F &function) {
        const std::string symbol = "nvPTXCompiler" + name;
        function = reinterpret_cast<F>(dlsym(library, symbol.c_str()));
        if (!function)
            throw Failure(cudaErrorNotSupported, "the PTX compiler has no function " + symbol);
    }
};

std::string log(Assembler::Handle handle, Assembler::Size size_of, Assembler::Write write) {
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

// Reads what follows each "Function properties for name".
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
        } else if (read_before(line, " bytes spill stores", stored) &&
                   read_before(line, " bytes spill loads", loaded)) {
            found[name].spilled = stored + loaded;
            read_before(line, " bytes stack frame", found[name].local);
        } else if (read_before(line, " registers", found[name].registers)) {
            read_before(line, " bytes smem", found[name].shared);
            read_before(line, " bytes cumulative stack size", found[name].local);
        }
    }
    return found;
}

}  // namespace

std::map<std::string, Resources> assemble(const std::string &ptx, const Device &device) {
    static const Assembler assembler;
    const std::string architecture =
        "--gpu-name=sm_" + std::to_string(device.major) + std::to_string(device.minor);
    const char *options[] = {architecture.c_str(), "--verbose"};
    Assembler::Handle handle = nullptr;
    const bool done = assembler.create(&handle, ptx.size(), ptx.c_str()) == 0 &&
                      assembler.compile(handle, 2, options) == 0;
    const std::string report = log(handle, assembler.info_size, assembler.info);
    const std::string errors = log(handle, assembler.errors_size, assembler.errors);
    assembler.destroy(&handle);
    if (!done) throw Failure(cudaErrorInvalidPtx, "the assembler failed: " + errors);
    return read(report);
}

}  // namespace gpu
