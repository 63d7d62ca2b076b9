// Chooses and launches a kernel.
#include <climits>
#include <cmath>

#include "arguments.h"
#include "deform_attn_plain.cuh"
#include "deform_attn_tiled.cuh"
#include "launch.h"
#include "launch_kernel.cuh"

namespace proscale {
namespace {

template <typename T>
struct Tensors {
    const T* value;
    const T* sampling;
    T* output;
};

bool aligned(const void* pointer, size_t bytes) { return reinterpret_cast<uintptr_t>(pointer) % bytes == 0; }

template <typename T, int kChannels>
cudaError_t launchPlain(const Geometry& geometry, int32_t batch, const Tensors<T>& tensors, cudaStream_t stream) {
    const int64_t items = int64_t{batch} * geometry.tokens * (geometry.channels() / kChannels);
    const int64_t blocks = (items + kPlainThreads - 1) / kPlainThreads;
    if (blocks > INT_MAX) return cudaErrorInvalidValue;
    return launch(deformAttnPlain<T, kChannels>, dim3(static_cast<unsigned>(blocks)), dim3(kPlainThreads), 0, stream,
                  geometry, items, tensors.value, tensors.sampling, tensors.output);
}

// Tiles of about `tokens` tokens, as square as level 0 counts pixels.
Tiling cut(const Geometry& geometry, int tokens) {
    const double tiles = std::fmax(1., static_cast<double>(geometry.tokens) / tokens);
    const double columns = std::round(std::sqrt(tiles * geometry.level[0].width / geometry.level[0].height));
    Tiling tiling;
    tiling.columns = static_cast<int32_t>(std::fmin(std::fmax(columns, 1.), tiles));
    tiling.rows = static_cast<int32_t>(std::ceil(tiles / tiling.columns));
    return tiling;
}

constexpr int kMostTokens = 96;         // of a tile: 2 x 2 pixels of the coarsest of three levels make 84
constexpr int kBlocksPerProcessor = 4;  // a small problem is cut finer, to give every multiprocessor that many
constexpr size_t kSharedBytes = 48 * 1024;
constexpr int64_t kMostGridYZ = 65535;

// Whether the kernel's integers hold the cut. It is made for maps of similar proportions; others may get huge tiles.
bool isCountable(const Geometry& geometry, const Tiling& tiling) {
    int64_t tokens = 0;
    for (int l = 0; l < geometry.levels; ++l) {
        const int64_t height = geometry.level[l].height, width = geometry.level[l].width;
        if (tiling.columns * width > UINT_MAX || tiling.rows * height > UINT_MAX) return false;
        tokens += (width / tiling.columns + 1) * (height / tiling.rows + 1);
    }
    return tokens < 1 << 20 && tiling.rows <= kMostGridYZ;
}

template <typename T, int kHeadDim>
cudaError_t launchTiled(const Geometry& geometry, int32_t batch, const Tensors<T>& tensors, cudaStream_t stream) {
    using L = Lanes<T, kHeadDim>;
    for (int l = 0; l < geometry.levels; ++l) {
        if (geometry.level[l].height < 2 || geometry.level[l].width < 2) return cudaErrorInvalidValue;
    }
    const int64_t layers = int64_t{batch} * (geometry.heads / L::kHeads);  // of the grid
    if (geometry.heads % L::kHeads != 0 || !aligned(tensors.value, 16) || !aligned(tensors.output, 16) ||
        !aligned(tensors.sampling, 2 * sizeof(T)) || geometry.samplingWidth() % 2 != 0 ||
        int64_t{geometry.tokens} * geometry.channels() * sizeof(T) > UINT_MAX || layers > kMostGridYZ) {
        return cudaErrorInvalidValue;
    }

    int device = 0, processors = 0;
    cudaError_t error = cudaGetDevice(&device);
    if (error == cudaSuccess) error = cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
    if (error != cudaSuccess) return error;
    int tokens = kMostTokens;
    while (tokens > kTiledThreads / L::kPerToken &&
           geometry.tokens / tokens * layers < int64_t{kBlocksPerProcessor} * processors) {
        tokens /= 2;
    }
    const Tiling tiling = cut(geometry, tokens);
    if (!isCountable(geometry, tiling)) return cudaErrorInvalidValue;

    // Many samples per token take much shared memory: fewer tokens at a time then. One warp's always fit, 33 KB at
    // most.
    int threads = kTiledThreads;
    while (tiledSharedBytes<T, kHeadDim>(geometry, threads) > kSharedBytes) threads /= 2;

    auto kernel = deformAttnTiled<T, kHeadDim, 0>;
    if constexpr (kHeadDim == kPublishedHeadDim) {
        if (geometry.heads == kPublishedHeads && geometry.points == kPublishedPoints) {
            if (geometry.levels == 1) kernel = deformAttnTiled<T, kHeadDim, 1>;
            if (geometry.levels == 2) kernel = deformAttnTiled<T, kHeadDim, 2>;
            if (geometry.levels == 3) kernel = deformAttnTiled<T, kHeadDim, 3>;
        }
    }
    return launch(
        kernel,
        dim3(static_cast<unsigned>(tiling.columns), static_cast<unsigned>(tiling.rows), static_cast<unsigned>(layers)),
        dim3(static_cast<unsigned>(threads)), tiledSharedBytes<T, kHeadDim>(geometry, threads), stream, geometry,
        tiling, tensors.value, tensors.sampling, tensors.output);
}

// cudaErrorInvalidValue where its conditions do not hold.
template <typename T>
cudaError_t launchTiled(const Geometry& geometry, int32_t batch, const Tensors<T>& tensors, cudaStream_t stream) {
    switch (geometry.headDim) {
        case 8:
            return launchTiled<T, 8>(geometry, batch, tensors, stream);
        case 16:
            return launchTiled<T, 16>(geometry, batch, tensors, stream);
        case 32:
            return launchTiled<T, 32>(geometry, batch, tensors, stream);
        case 64:
            return launchTiled<T, 64>(geometry, batch, tensors, stream);
        default:
            return cudaErrorInvalidValue;
    }
}

template <typename T>
cudaError_t launchOne(const Geometry& geometry, int32_t batch, const void* value, const void* sampling, void* output,
                      ProscaleKernel kernel, cudaStream_t stream) {
    const Tensors<T> tensors{static_cast<const T*>(value), static_cast<const T*>(sampling), static_cast<T*>(output)};
    if (kernel != PROSCALE_PLAIN) {
        const cudaError_t error = launchTiled(geometry, batch, tensors, stream);
        if (kernel == PROSCALE_TILED || error != cudaErrorInvalidValue) return error;
    }
    constexpr int kVector = 16 / sizeof(T);
    const bool vectors = geometry.headDim % kVector == 0 && aligned(value, 16) && aligned(output, 16);
    return vectors ? launchPlain<T, kVector>(geometry, batch, tensors, stream)
                   : launchPlain<T, 1>(geometry, batch, tensors, stream);
}

}  // namespace

cudaError_t deformAttn(const Geometry& geometry, ProscaleType type, int32_t batch, const void* value,
                       const void* sampling, void* output, ProscaleKernel kernel, cudaStream_t stream) noexcept {
    if (batch < 1) return cudaErrorInvalidValue;
    switch (type) {
        case PROSCALE_FLOAT:
            return launchOne<float>(geometry, batch, value, sampling, output, kernel, stream);
        case PROSCALE_HALF:
            return launchOne<half>(geometry, batch, value, sampling, output, kernel, stream);
        case PROSCALE_BFLOAT16:
            return launchOne<bfloat16>(geometry, batch, value, sampling, output, kernel, stream);
    }
    return cudaErrorInvalidValue;
}

}  // namespace proscale

extern "C" int proscale_deform_attn_cuda(const ProscaleDeformAttn* op, int32_t batch, const void* value,
                                         const void* sampling, void* output, int32_t kernel, void* stream) {
    proscale::Geometry geometry;
    if (!proscale::makeGeometry(op, geometry).empty()) return cudaErrorInvalidValue;
    if (kernel < PROSCALE_AUTO || kernel > PROSCALE_TILED) return cudaErrorInvalidValue;
    return proscale::deformAttn(geometry, static_cast<ProscaleType>(op->type), batch, value, sampling, output,
                                static_cast<ProscaleKernel>(kernel), static_cast<cudaStream_t>(stream));
}
