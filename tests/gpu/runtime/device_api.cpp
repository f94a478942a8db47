// What the device is: its number, properties, attributes and limits; contexts of the driver.
#include <cuda.h>
#include <cuda_profiler_api.h>
#include <cuda_runtime_api.h>

#include <climits>
#include <cstdio>
#include <cstring>

#include "context.h"

using namespace gpu;

namespace {

constexpr int VERSION = CUDART_VERSION;
constexpr int GRID_X = INT_MAX, GRID_YZ = 65535, BLOCK_Z = 64;
constexpr size_t CONSTANT_BYTES = 65536;
constexpr int ALIGNMENT = 512;
constexpr char PCI_BUS[] = "0000:01:00.0";

void check_device(int device) {
    if (device != 0)
        throw Failure(cudaErrorInvalidDevice,
                      "got device " + std::to_string(device) + ", expected 0, the only one");
}

int as_int(size_t value) { return static_cast<int>(value); }

// How many times as fast the cards calculate in float32 as in float64.
int double_ratio(const Device &d) {
    return d.minor == 0 && d.major >= 8 ? 2 : d.major == 7 ? 32 : 64;
}

int attribute(const Device &d, int which) {
    switch (which) {
    case cudaDevAttrMaxThreadsPerBlock:
        return Device::threads_per_block;
    case cudaDevAttrMaxBlockDimX:
        return Device::threads_per_block;
    case cudaDevAttrMaxBlockDimY:
        return Device::threads_per_block;
    case cudaDevAttrMaxBlockDimZ:
        return BLOCK_Z;
    case cudaDevAttrMaxGridDimX:
        return GRID_X;
    case cudaDevAttrMaxGridDimY:
        return GRID_YZ;
    case cudaDevAttrMaxGridDimZ:
        return GRID_YZ;
    case cudaDevAttrMaxSharedMemoryPerBlock:
        return as_int(d.shared_per_block);
    case cudaDevAttrTotalConstantMemory:
        return as_int(CONSTANT_BYTES);
    case cudaDevAttrWarpSize:
        return Device::warp;
    case cudaDevAttrMaxPitch:
        return INT_MAX;
    case cudaDevAttrMaxRegistersPerBlock:
        return d.registers_per_block;
    case cudaDevAttrClockRate:
        return d.clock_khz;
    case cudaDevAttrTextureAlignment:
        return ALIGNMENT;
    case cudaDevAttrGpuOverlap:
        return 1;
    case cudaDevAttrMultiProcessorCount:
        return d.multiprocessors;
    case cudaDevAttrCanMapHostMemory:
        return 1;
    case cudaDevAttrSurfaceAlignment:
        return ALIGNMENT;
    case cudaDevAttrConcurrentKernels:
        return 1;
    case cudaDevAttrEccEnabled:
        return 1;
    case cudaDevAttrPciBusId:
        return 1;
    case cudaDevAttrMemoryClockRate:
        return d.memory_clock_khz;
    case cudaDevAttrGlobalMemoryBusWidth:
        return d.memory_bus_bits;
    case cudaDevAttrL2CacheSize:
        return as_int(d.l2_bytes);
    case cudaDevAttrMaxThreadsPerMultiProcessor:
        return d.threads_per_multiprocessor;
    case cudaDevAttrAsyncEngineCount:
        return 3;
    case cudaDevAttrUnifiedAddressing:
        return 1;
    case cudaDevAttrTexturePitchAlignment:
        return 32;
    case cudaDevAttrComputeCapabilityMajor:
        return d.major;
    case cudaDevAttrComputeCapabilityMinor:
        return d.minor;
    case cudaDevAttrStreamPrioritiesSupported:
        return 1;
    case cudaDevAttrGlobalL1CacheSupported:
        return 1;
    case cudaDevAttrLocalL1CacheSupported:
        return 1;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
        return as_int(d.shared_per_multiprocessor);
    case cudaDevAttrMaxRegistersPerMultiprocessor:
        return d.registers_per_multiprocessor;
    case cudaDevAttrManagedMemory:
        return 1;
    case cudaDevAttrSingleToDoublePrecisionPerfRatio:
        return double_ratio(d);
    case cudaDevAttrConcurrentManagedAccess:
        return 1;
    case cudaDevAttrComputePreemptionSupported:
        return 1;
    case cudaDevAttrCanUseHostPointerForRegisteredMem:
        return 1;
    case cudaDevAttrCooperativeLaunch:
        return 1;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
        return as_int(d.shared_per_block_optin);
    case cudaDevAttrHostRegisterSupported:
        return 1;
    case cudaDevAttrMaxBlocksPerMultiprocessor:
        return d.blocks_per_multiprocessor;
    case cudaDevAttrReservedSharedMemoryPerBlock:
        return as_int(d.shared_reserved_per_block);
    }
    return 0;  // textures, surfaces, peers, pools: there are none
}

}  // namespace

extern "C" {

cudaError_t cudaDriverGetVersion(int *version) {
    *version = VERSION;
    return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *version) {
    *version = VERSION;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int *count) {
    *count = 1;
    return cudaSuccess;
}

// The two that hold no lock: CuPy calls them at every turn, with Python's own lock held.
cudaError_t cudaGetDevice(int *device) {
    *device = 0;
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) {
    if (device == 0) return cudaSuccess;
    return runtime_call([&] { check_device(device); });
}

cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr which, int device) {
    return runtime_call([&] {
        check_device(device);
        if (which < 1 || which >= 200)
            throw Failure(cudaErrorInvalidValue,
                          "there is no device attribute " + std::to_string(which));
        *value = attribute(context().machine.device, which);
    });
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int device) {
    return runtime_call([&] {
        check_device(device);
        const Device &d = context().machine.device;
        *p = {};
        std::snprintf(p->name, sizeof p->name, "%s (emulated)", d.name);
        p->totalGlobalMem = d.memory;
        p->sharedMemPerBlock = d.shared_per_block;
        p->regsPerBlock = d.registers_per_block;
        p->warpSize = Device::warp;
        p->memPitch = INT_MAX;
        p->maxThreadsPerBlock = Device::threads_per_block;
        p->maxThreadsDim[0] = p->maxThreadsDim[1] = Device::threads_per_block;
        p->maxThreadsDim[2] = BLOCK_Z;
        p->maxGridSize[0] = GRID_X;
        p->maxGridSize[1] = p->maxGridSize[2] = GRID_YZ;
        p->totalConstMem = CONSTANT_BYTES;
        p->major = d.major;
        p->minor = d.minor;
        p->textureAlignment = p->surfaceAlignment = ALIGNMENT;
        p->texturePitchAlignment = 32;
        p->multiProcessorCount = d.multiprocessors;
        p->canMapHostMemory = p->concurrentKernels = p->ECCEnabled = p->unifiedAddressing = 1;
        p->pciBusID = 1;
        p->asyncEngineCount = 3;
        p->memoryBusWidth = d.memory_bus_bits;
        p->l2CacheSize = as_int(d.l2_bytes);
        p->maxThreadsPerMultiProcessor = d.threads_per_multiprocessor;
        p->streamPrioritiesSupported = p->globalL1CacheSupported = p->localL1CacheSupported = 1;
        p->sharedMemPerMultiprocessor = d.shared_per_multiprocessor;
        p->regsPerMultiprocessor = d.registers_per_multiprocessor;
        p->managedMemory = p->concurrentManagedAccess = p->computePreemptionSupported = 1;
        p->canUseHostPointerForRegisteredMem = p->cooperativeLaunch = 1;
        p->sharedMemPerBlockOptin = d.shared_per_block_optin;
        p->maxBlocksPerMultiProcessor = d.blocks_per_multiprocessor;
        p->reservedSharedMemPerBlock = d.shared_reserved_per_block;
        p->hostRegisterSupported = 1;
    });
}

cudaError_t cudaDeviceGetPCIBusId(char *text, int length, int device) {
    return runtime_call([&] {
        check_device(device);
        std::snprintf(text, length, "%s", PCI_BUS);
    });
}

cudaError_t cudaDeviceGetByPCIBusId(int *device, const char *text) {
    return runtime_call([&] {
        if (std::strcmp(text, PCI_BUS))
            throw Failure(cudaErrorInvalidDevice,
                          std::string("got ") + text + ", expected " + PCI_BUS + ", the only one");
        *device = 0;
    });
}

cudaError_t cudaDeviceCanAccessPeer(int *can, int device, int peer) {
    return runtime_call([&] {
        check_device(device);
        check_device(peer);
        *can = 0;
    });
}

cudaError_t cudaDeviceGetLimit(size_t *value, cudaLimit limit) {
    return runtime_call([&] {
        switch (limit) {
        case cudaLimitStackSize:
            *value = 1024;
            return;
        case cudaLimitPrintfFifoSize:
            *value = 1 << 20;
            return;
        case cudaLimitMallocHeapSize:
            *value = 8 << 20;
            return;
        default:
            throw Failure(cudaErrorNotSupported, "this limit is not emulated");
        }
    });
}

cudaError_t cudaProfilerStart() { return cudaSuccess; }
cudaError_t cudaProfilerStop() { return cudaSuccess; }

// The driver's contexts: there is the device's primary one and no other.
CUresult cuCtxGetCurrent(CUcontext *current) {
    return driver_call(
        [&] { *current = has_context() ? reinterpret_cast<CUcontext>(&context()) : nullptr; });
}

CUresult cuCtxSetCurrent(CUcontext current) {
    return driver_call([&] { has_context() = current != nullptr; });
}

CUresult cuCtxGetDevice(CUdevice *device) {
    return driver_call([&] { *device = 0; });
}

CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device) {
    return driver_call([&] { check_device(device); });
}
}
