// The kernel of TensorRT's MultiscaleDeformableAttnPlugin_TRT as a peer of the benchmark, from a checkout of
// https://github.com/NVIDIA/TensorRT (the macro keeps out a header that needs all of TensorRT):
//
//     nvcc -std=c++17 -O3 -arch=native -shared -Xcompiler=-fPIC -DCHECK_MACROS_PLUGIN_H -I TensorRT/plugin
//         -I TensorRT/plugin/multiscaleDeformableAttnPlugin plugins/bench/foreign/tensorrt.cu -o libtensorrt_peer.so
//     python -m plugins.bench --peer TensorRT=libtensorrt_peer.so:tensorrt_peer:locations-int32
#include <cuda_fp16.h>

#include <cstdint>
#include <iostream>

namespace nvinfer1::plugin {
inline std::ostream& gLogError = std::cerr;
}

#include "multiscaleDeformableAttn.cu"
#include "multiscaleDeformableAttn.h"

namespace {

template <typename T>
int run(int batch, int tokens, int heads, int headDim, int levels, int points, const void* value,
        const int32_t* spatialShapes, const int32_t* levelStartIndex, const void* locations, const void* weights,
        void* output, void* stream) {
    return ms_deform_attn_cuda_forward(static_cast<cudaStream_t>(stream), static_cast<const T*>(value), spatialShapes,
                                       levelStartIndex, static_cast<const T*>(locations),
                                       static_cast<const T*>(weights), static_cast<T*>(output), batch, tokens, heads,
                                       headDim, levels, tokens, points);
}

}  // namespace

extern "C" int tensorrt_peer(int type, int batch, int tokens, int heads, int headDim, int levels, int points,
                             const void* value, const int32_t* spatialShapes, const int32_t* levelStartIndex,
                             const void* locations, const void* weights, void* output, void* stream) {
    if (type > 1) return cudaErrorInvalidValue;  // it has no BF16
    const auto call = type == 0 ? run<float> : run<__half>;
    return call(batch, tokens, heads, headDim, levels, points, value, spatialShapes, levelStartIndex, locations,
                weights, output, stream);
}
