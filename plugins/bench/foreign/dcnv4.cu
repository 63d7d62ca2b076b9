// FlashDeformAttn of DCNv4 as a peer of the benchmark, from a checkout of https://github.com/OpenGVLab/DCNv4. Its
// header includes PyTorch's, of which it needs two names: empty files take their place.
//
//     mkdir -p stand-in/ATen/cuda stand-in/THC
//     touch stand-in/ATen/{ATen.h,OpMathType.h,cuda/CUDAContext.h} stand-in/THC/THCAtomics.cuh
//     nvcc -std=c++17 -O3 -arch=native -shared -Xcompiler=-fPIC -I stand-in -I DCNv4/DCNv4_op/src/cuda
//         plugins/bench/foreign/dcnv4.cu -o libdcnv4_peer.so
//     python -m plugins.bench --peer DCNv4=libdcnv4_peer.so:dcnv4_peer:flash
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cassert>
#include <cstdint>
#include <stdexcept>

namespace at {
template <typename T>
using opmath_type = float;
}
#define AT_ASSERTM(condition, ...) assert(condition)

#include "flash_deform_im2col_cuda.cuh"

namespace {

// As its Python layer chooses them: 8 channels per thread, the most queries that divide all and make 512 threads.
constexpr int kChannels = 8, kMostThreads = 512, kMostQueries = 64;

template <typename T, typename Vector>
int run(int batch, int tokens, int heads, int headDim, int levels, const void* value, const int64_t* shapes,
        const int64_t* starts, const void* both, void* output, void* stream) {
    const int threads = heads * headDim / kChannels;
    int queries = 1;
    for (int q = 2; q <= kMostQueries && q * threads <= kMostThreads; ++q) {
        if (tokens % q == 0) queries = q;  // a block has queries of one image
    }
    _flash_deformable_im2col_cuda<T, Vector, 4, kChannels>(
        static_cast<cudaStream_t>(stream), static_cast<const T*>(value), shapes, starts, static_cast<const T*>(both),
        static_cast<T*>(output), batch, tokens, heads, headDim, levels, tokens, queries * threads, true);
    return cudaPeekAtLastError();
}

}  // namespace

extern "C" int dcnv4_peer(int type, int batch, int tokens, int heads, int headDim, int levels, int points,
                          const void* value, const int64_t* spatialShapes, const int64_t* levelStartIndex,
                          const void* locationsAndLogits, void* output, void* stream) {
    if (points != 4 || headDim % kChannels != 0 || type < 0 || type > 2) return cudaErrorInvalidValue;
    const auto call = type == 0 ? run<float, ulonglong4> : type == 1 ? run<__half, uint4> : run<__nv_bfloat16, uint4>;
    return call(batch, tokens, heads, headDim, levels, value, spatialShapes, levelStartIndex, locationsAndLogits,
                output, stream);
}
