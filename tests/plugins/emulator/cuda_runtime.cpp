// The state of the stand-in for CUDA's runtime.
#include "cuda_runtime.h"

#include <map>

namespace emulator {
namespace {
std::map<const void*, size_t> allowed;
thread_local cudaError_t lastError = cudaSuccess;
int processors = 1;
}  // namespace

void setProcessors(int count) { processors = count; }

void allowShared(const void* kernel, size_t bytes) { allowed[kernel] = bytes; }

cudaError_t check(const void* kernel, const cudaLaunchConfig_t& config) {
    const dim3 grid = config.gridDim, block = config.blockDim;
    const auto within = [](unsigned x, unsigned most) { return x >= 1 && x <= most; };
    if (!within(grid.x, 0x7fffffff) || !within(grid.y, 65535) || !within(grid.z, 65535) || !within(block.x, 1024) ||
        !within(block.y, 1024) || !within(block.z, 64) || block.x * block.y * block.z > 1024) {
        return cudaErrorInvalidConfiguration;
    }
    const auto found = allowed.find(kernel);
    const size_t most = std::max(found == allowed.end() ? 0 : found->second, kSharedByDefault);
    return config.dynamicSmemBytes <= most ? cudaSuccess : cudaErrorInvalidValue;
}

cudaError_t remember(cudaError_t error) {
    if (error != cudaSuccess) lastError = error;
    return error;
}

}  // namespace emulator

cudaError_t cudaPeekAtLastError() { return emulator::lastError; }

cudaError_t cudaGetLastError() {
    const cudaError_t error = emulator::lastError;
    emulator::lastError = cudaSuccess;
    return error;
}

cudaError_t cudaGetDevice(int* device) {
    *device = 0;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
    switch (attribute) {
        case cudaDevAttrMultiProcessorCount:
            *value = emulator::processors;
            break;
        case cudaDevAttrComputeCapabilityMajor:
            *value = __CUDA_ARCH__ / 100;
            break;
        case cudaDevAttrMaxSharedMemoryPerBlockOptin:
            *value = emulator::kSharedBytes;
            break;
        default:
            return emulator::remember(cudaErrorInvalidValue);
    }
    return cudaSuccess;
}
