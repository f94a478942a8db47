#include "models.h"

#include <cstring>

namespace gpu {
namespace {

constexpr size_t KiB = 1024, MiB = 1024 * KiB, GiB = 1024 * MiB;

struct Named {
    const char *name;
    Device device;
};

// Limits by compute capability: CUDA C++ Programming Guide, "Compute Capabilities". The rest is
// what cudaGetDeviceProperties tells on such a board.
const Named MODELS[] = {
    {"h100",
     {"NVIDIA H100 80GB HBM3", 9, 0, 132, 2048, 32, 65536, 65536, 228 * KiB, 48 * KiB, 227 * KiB,
      1 * KiB, 79 * GiB, 50 * MiB, 1980000, 2619000, 5120}},
    {"a100",
     {"NVIDIA A100-SXM4-40GB", 8, 0, 108, 2048, 32, 65536, 65536, 164 * KiB, 48 * KiB, 163 * KiB,
      1 * KiB, 39 * GiB, 40 * MiB, 1410000, 1215000, 5120}},
    {"rtx4090",
     {"NVIDIA GeForce RTX 4090", 8, 9, 128, 1536, 24, 65536, 65536, 100 * KiB, 48 * KiB, 99 * KiB,
      1 * KiB, 23 * GiB, 72 * MiB, 2520000, 10501000, 384}},
    {"t4",
     {"Tesla T4", 7, 5, 40, 1024, 16, 65536, 65536, 64 * KiB, 48 * KiB, 64 * KiB, 0, 14 * GiB,
      4 * MiB, 1590000, 5001000, 256}},
};

}  // namespace

const Device *find_model(const char *name) {
    for (const Named &model : MODELS)
        if (!std::strcmp(model.name, name)) return &model.device;
    return nullptr;
}

}  // namespace gpu
