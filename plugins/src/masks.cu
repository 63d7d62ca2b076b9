// Launches the kernels of mask_api.h.
#include <cstdint>

#include "launch_kernel.cuh"
#include "masks_instances.cuh"
#include "masks_panoptic.cuh"
#include "masks_semantic.cuh"

namespace proscale {
namespace {

dim3 gridOf(const ProscaleMasks& masks) {
    return dim3(static_cast<unsigned>(tilesOf(masks.output_width, kTileWidth)),
                static_cast<unsigned>(tilesOf(masks.output_height, kTileHeight)));
}

// A kernel, the one of FP32 or the one of FP16, with a block per tile.
template <typename Task>
cudaError_t launchTiles(const ProscaleMasks& masks, const Task& task, void (*of32)(ProscaleMasks, Task),
                        void (*of16)(ProscaleMasks, Task), size_t sharedBytes, cudaStream_t stream) {
    return launch(masks.type == PROSCALE_FLOAT ? of32 : of16, gridOf(masks), dim3(kMaskThreads), sharedBytes, stream,
                  masks, task);
}

// Elements are taken one by one for any alignment, at some loss: what a launch reads mostly lies in L2 still.
constexpr unsigned kMostBlocks = 2048;

unsigned blocksFor(int64_t count) {
    const int64_t blocks = (count + kMaskThreads - 1) / kMaskThreads;
    return static_cast<unsigned>(blocks < kMostBlocks ? blocks : kMostBlocks);
}

}  // namespace

__global__ void __launch_bounds__(kMaskThreads)
    relabelCodes(const int16_t* __restrict__ codes, int64_t count, const int32_t* __restrict__ ids,
                 int32_t* __restrict__ map) {
    const int64_t step = int64_t{gridDim.x} * kMaskThreads;
    for (int64_t i = int64_t{blockIdx.x} * kMaskThreads + threadIdx.x; i < count; i += step) map[i] = ids[codes[i]];
}

// `exponent`: the bits that are all set in a NaN or an infinity.
template <typename Bits>
__global__ void __launch_bounds__(kMaskThreads)
    countNonfinite(const Bits* __restrict__ values, int64_t count, Bits exponent, uint32_t* found) {
    const int64_t step = int64_t{gridDim.x} * kMaskThreads;
    int mine = 0;
    for (int64_t i = int64_t{blockIdx.x} * kMaskThreads + threadIdx.x; i < count; i += step) {
        mine += (values[i] & exponent) == exponent;
    }
    mine = reduceWarp(mine, [](int a, int b) { return a + b; });
    if (threadIdx.x % 32 == 0 && mine != 0) atomicAdd(found, static_cast<uint32_t>(mine));
}

}  // namespace proscale

using namespace proscale;

extern "C" int proscale_panoptic_cuda(const ProscaleMasks* masks, const ProscalePanoptic* task, void* stream) {
    if (!isValid(masks, task)) return cudaErrorInvalidValue;
    const auto queue = static_cast<cudaStream_t>(stream);
    const cudaError_t error = cudaMemsetAsync(task->counts, 0, size_t{3} * task->kept * sizeof *task->counts, queue);
    if (error != cudaSuccess) return error;
    return launchTiles(*masks, *task, panopticTiles<float>, panopticTiles<half>, PanopticShared::bytes(task->kept),
                       queue);
}

extern "C" int proscale_semantic_cuda(const ProscaleMasks* masks, const ProscaleSemantic* task, void* stream) {
    if (!isValid(masks, task)) return cudaErrorInvalidValue;
    const size_t bytes = SemanticShared::bytes(masks->queries, task->classes);
    const auto queue = static_cast<cudaStream_t>(stream);
    return masks->samples == 1
               ? launchTiles(*masks, *task, semanticTiles<float, 1>, semanticTiles<half, 1>, bytes, queue)
               : launchTiles(*masks, *task, semanticTiles<float, 2>, semanticTiles<half, 2>, bytes, queue);
}

extern "C" int proscale_instances_cuda(const ProscaleMasks* masks, const ProscaleInstances* task, void* stream) {
    if (!isValid(masks, task)) return cudaErrorInvalidValue;
    const auto queue = static_cast<cudaStream_t>(stream);
    const cudaError_t error = cudaMemsetAsync(task->stats, 0, task->wanted * sizeof *task->stats, queue);
    if (error != cudaSuccess) return error;
    return launchTiles(*masks, *task, instanceTiles<float>, instanceTiles<half>, InstancesShared::bytes(task->wanted),
                       queue);
}

extern "C" int proscale_relabel_cuda(const int16_t* codes, int64_t count, const int32_t* ids, int32_t entries,
                                     int32_t* map, void* stream) {
    if (codes == nullptr || ids == nullptr || map == nullptr || count < 1 || entries < 1) return cudaErrorInvalidValue;
    return launch(relabelCodes, dim3(blocksFor(count)), dim3(kMaskThreads), 0, static_cast<cudaStream_t>(stream), codes,
                  count, ids, map);
}

extern "C" int proscale_count_nonfinite_cuda(int32_t type, const void* values, int64_t count, uint32_t* found,
                                             void* stream) {
    const bool known = type == PROSCALE_FLOAT || type == PROSCALE_HALF;
    if (!known || values == nullptr || found == nullptr || count < 1) return cudaErrorInvalidValue;
    const auto queue = static_cast<cudaStream_t>(stream);
    const cudaError_t error = cudaMemsetAsync(found, 0, sizeof *found, queue);
    if (error != cudaSuccess) return error;
    const dim3 blocks(blocksFor(count)), threads(kMaskThreads);
    if (type == PROSCALE_FLOAT) {
        return launch(countNonfinite<uint32_t>, blocks, threads, 0, queue, values, count, 0x7f800000u, found);
    }
    return launch(countNonfinite<uint16_t>, blocks, threads, 0, queue, values, count, 0x7c00u, found);
}
