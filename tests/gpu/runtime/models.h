// The GPUs that the machine can stand for.
#pragma once

#include "../machine/device.h"

namespace gpu {

// The model of a short name: "h100", "a100", "rtx4090" or "t4"; nullptr for any other.
const Device *find_model(const char *name);

}  // namespace gpu
