// By NVIDIA's own calculator, which the runtime's headers have.
#include "occupancy.h"

#include <cuda_occupancy.h>

#include <algorithm>

#include "context.h"

namespace gpu {

int most_threads(Kernel &kernel) {
    // Registers go to warps in units of 256, of the 65536 that a block can have.
    constexpr int UNIT = 256;
    const Device &device = context().machine.device;
    const int of_warp = (resources_of(kernel).registers * Device::warp + UNIT - 1) / UNIT * UNIT;
    int most = Device::threads_per_block;
    if (of_warp) most = std::min(most, device.registers_per_block / of_warp * Device::warp);
    const int bound = int(kernel.function->maximum_threads);
    return bound ? std::min(most, bound) : most;
}

int resident_blocks(Kernel &kernel, int threads, size_t dynamic_shared) {
    const Device &device = context().machine.device;
    cudaOccDeviceProp properties = {};
    properties.computeMajor = device.major;
    properties.computeMinor = device.minor;
    properties.maxThreadsPerBlock = Device::threads_per_block;
    properties.maxThreadsPerMultiprocessor = device.threads_per_multiprocessor;
    properties.regsPerBlock = device.registers_per_block;
    properties.regsPerMultiprocessor = device.registers_per_multiprocessor;
    properties.warpSize = Device::warp;
    properties.sharedMemPerBlock = device.shared_per_block;
    properties.sharedMemPerMultiprocessor = device.shared_per_multiprocessor;
    properties.numSms = device.multiprocessors;
    properties.sharedMemPerBlockOptin = device.shared_per_block_optin;
    properties.reservedSharedMemPerBlock = device.shared_reserved_per_block;
    const Resources &resources = resources_of(kernel);
    cudaOccFuncAttributes attributes = {};
    attributes.maxThreadsPerBlock = most_threads(kernel);
    attributes.numRegs = resources.registers;
    attributes.sharedSizeBytes = resources.shared;
    attributes.partitionedGCConfig = PARTITIONED_GC_OFF;
    attributes.shmemLimitConfig = FUNC_SHMEM_LIMIT_OPTIN;
    attributes.maxDynamicSharedSizeBytes = dynamic_shared;
    const cudaOccDeviceState state = {};
    cudaOccResult result;
    const cudaOccError error = cudaOccMaxActiveBlocksPerMultiprocessor(
        &result, &properties, &attributes, &state, threads, dynamic_shared);
    if (error != CUDA_OCC_SUCCESS)
        throw Failure(cudaErrorInvalidValue, "occupancy of " + std::to_string(threads) +
                                                 " threads and " + std::to_string(dynamic_shared) +
                                                 " bytes of shared memory");
    return result.activeBlocksPerMultiprocessor;
}

}  // namespace gpu
