// Chooses and launches the kernel of the preprocessing.
#include "launch_kernel.cuh"
#include "preprocess_kernel.cuh"

namespace proscale {
namespace {

bool isMultiple(uint64_t number, uint64_t of) { return number % of == 0; }

template <typename T>
cudaError_t launchPreprocess(const ProscalePreprocess& task, cudaStream_t stream) {
    const auto address = [](const void* pointer) { return reinterpret_cast<uintptr_t>(pointer); };
    if (!isMultiple(address(task.output), sizeof(T)) || !isMultiple(address(task.columns.weights), sizeof(uint4))) {
        return cudaErrorInvalidValue;
    }
    const bool words = isMultiple(address(task.frame), 4) && isMultiple(static_cast<uint64_t>(task.pitch), 4) &&
                       isMultiple(static_cast<uint64_t>(task.width), 4);
    const auto tiles = [](int32_t size, int tile) { return static_cast<unsigned>((size + tile - 1) / tile); };
    return launch(words ? preprocessTile<T, true> : preprocessTile<T, false>,
                  dim3(tiles(task.output_width, kTileWidth), tiles(task.output_height, kTileHeight)),
                  dim3(kPreprocessThreads), kPreprocessSharedBytes<T>, stream, task);
}

}  // namespace
}  // namespace proscale

extern "C" int proscale_preprocess_cuda(const ProscalePreprocess* task, void* stream) {
    using namespace proscale;
    if (!isValid(task)) return cudaErrorInvalidValue;
    const auto launchIt = task->type == PROSCALE_FLOAT ? launchPreprocess<float> : launchPreprocess<half>;
    return launchIt(*task, static_cast<cudaStream_t>(stream));
}
