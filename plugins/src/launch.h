// Launchers of the kernels. They allocate nothing, never synchronise, and may be captured into a CUDA graph.
#pragma once

#include <cuda_runtime_api.h>

#include "proscale/c_api.h"
#include "proscale/geometry.h"

namespace proscale {

// value, sampling, output: dense device tensors of `type`, aligned to their elements; batch >= 1.
// Returns cudaErrorInvalidValue for an unknown type, a batch below 1, and for PROSCALE_TILED where its conditions
// (see deform_attn_tiled.cuh) do not hold; else what the launch reports.
cudaError_t deformAttn(const Geometry& geometry, ProscaleType type, int32_t batch, const void* value,
                       const void* sampling, void* output, ProscaleKernel kernel, cudaStream_t stream) noexcept;

}  // namespace proscale
