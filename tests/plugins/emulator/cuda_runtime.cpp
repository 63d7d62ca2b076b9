// The state of the stand-in for CUDA's runtime.
#include "cuda_runtime.h"

namespace emulator {
namespace {
int processors = 1;
}  // namespace

void setProcessors(int count) { processors = count; }

cudaError_t check(const cudaLaunchConfig_t& config) {
    const dim3 grid = config.gridDim, block = config.blockDim;
    const auto within = [](unsigned x, unsigned most) { return x >= 1 && x <= most; };
    if (!within(grid.x, 0x7fffffff) || !within(grid.y, 65535) || !within(grid.z, 65535) || !within(block.x, 1024) ||
        !within(block.y, 1024) || !within(block.z, 64) || block.x * block.y * block.z > 1024) {
        return cudaErrorInvalidConfiguration;
    }
    return config.dynamicSmemBytes <= kSharedBytes ? cudaSuccess : cudaErrorInvalidValue;
}

}  // namespace emulator

cudaError_t cudaMemsetAsync(void* memory, int byte, size_t count, cudaStream_t) {
    std::memset(memory, byte, count);
    return cudaSuccess;
}

cudaError_t cudaGetDevice(int* device) {
    *device = 0;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
    if (attribute != cudaDevAttrMultiProcessorCount) return cudaErrorInvalidValue;
    *value = emulator::processors;
    return cudaSuccess;
}
