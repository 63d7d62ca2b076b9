// One call to launch a kernel on a stream.
#pragma once

#include <cuda_runtime.h>

namespace proscale {

// `arguments` are converted to the kernel's parameter types. Returns what the launch reports; errors of the kernel's
// run come later, through the stream.
template <typename... Parameters, typename... Arguments>
cudaError_t launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t sharedBytes, cudaStream_t stream,
                   Arguments... arguments) {
    cudaLaunchConfig_t config{};
    config.gridDim = grid;
    config.blockDim = block;
    config.dynamicSmemBytes = sharedBytes;
    config.stream = stream;
    return cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...);
}

}  // namespace proscale
