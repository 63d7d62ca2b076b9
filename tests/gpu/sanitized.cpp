// Runs the kernels on small problems for compute-sanitizer. Tensors are as large as they must be, so that memcheck sees
// every access outside of them, and outputs are not written before, so that initcheck sees every element that a kernel
// leaves out when they are copied back.
#include <cuda_runtime_api.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include "proscale/c_api.h"
#include "proscale/scalar.h"

namespace {

void check(cudaError_t error, const char* what) {
    if (error == cudaSuccess) return;
    std::printf("%s: %s\n", what, cudaGetErrorString(error));
    std::exit(1);
}

struct DeviceMemory {
    explicit DeviceMemory(size_t bytes) : bytes(bytes) { check(cudaMalloc(&data, bytes), "cudaMalloc"); }
    ~DeviceMemory() { cudaFree(data); }
    DeviceMemory(const DeviceMemory&) = delete;
    DeviceMemory& operator=(const DeviceMemory&) = delete;
    void* data = nullptr;
    const size_t bytes;
};

template <typename T>
std::vector<T> normal(size_t count, std::mt19937& generator) {
    std::normal_distribution<float> distribution(0.f, 2.f);
    std::vector<T> values(count);
    for (T& value : values) value = proscale::fromFloat<T>(distribution(generator));
    return values;
}

// Whether every element was written and is a number.
template <typename T>
bool run(const ProscaleDeformAttn& op, int32_t batch, ProscaleKernel kernel, cudaStream_t stream) {
    size_t tokens = 0;
    for (int32_t l = 0; l < op.levels; ++l) tokens += static_cast<size_t>(op.sizes[2 * l]) * op.sizes[2 * l + 1];
    const size_t rows = tokens * batch;
    std::mt19937 generator(0);
    const std::vector<T> value = normal<T>(rows * op.heads * op.head_dim, generator);
    std::vector<T> sampling = normal<T>(rows * op.heads * op.levels * op.points * 3, generator);
    // Some far outside and some nowhere.
    for (size_t i = 0; i < 2 * sampling.size() / 3; i += 7) {
        const float places[] = {1e4f, -1e4f, INFINITY, -INFINITY, NAN};
        // Of the offsets only: logits are the last third of a row.
        const size_t width = static_cast<size_t>(op.heads) * op.levels * op.points * 3;
        if (i % width < 2 * width / 3) sampling[i] = proscale::fromFloat<T>(places[i / 7 % 5]);
    }
    std::vector<T> output(value.size());

    const DeviceMemory valueThere(value.size() * sizeof(T)), samplingThere(sampling.size() * sizeof(T));
    const DeviceMemory outputThere(output.size() * sizeof(T));
    check(cudaMemcpy(valueThere.data, value.data(), valueThere.bytes, cudaMemcpyHostToDevice), "copy");
    check(cudaMemcpy(samplingThere.data, sampling.data(), samplingThere.bytes, cudaMemcpyHostToDevice), "copy");
    check(static_cast<cudaError_t>(proscale_deform_attn_cuda(&op, batch, valueThere.data, samplingThere.data,
                                                             outputThere.data, kernel, stream)),
          "launch");
    check(cudaStreamSynchronize(stream), "kernel");
    check(cudaMemcpy(output.data(), outputThere.data, outputThere.bytes, cudaMemcpyDeviceToHost), "copy");
    for (const T element : output) {
        if (!std::isfinite(proscale::toFloat(element))) return false;
    }
    return true;
}

}  // namespace

int main() {
    cudaStream_t stream;
    check(cudaStreamCreate(&stream), "stream");
    // heads, channels per head, points, levels, sizes
    const ProscaleDeformAttn problems[] = {
        {0, 8, 32, 4, 3, {7, 11, 13, 21, 25, 42}},  // as deployed, but small
        {0, 8, 32, 4, 1, {13, 21}},
        {0, 8, 16, 3, 2, {2, 9, 17, 3}},
        {0, 8, 8, 8, 2, {5, 7, 3, 4}},
        {0, 4, 64, 2, 2, {11, 5, 6, 3}},
        {0, 3, 12, 3, 4, {1, 1, 1, 5, 4, 1, 2, 2}},  // nothing fits: the plain kernel, element by element
    };
    int done = 0, failed = 0;
    for (ProscaleDeformAttn op : problems) {
        const bool tiled = op.head_dim != 12;
        for (const ProscaleKernel kernel : {PROSCALE_PLAIN, PROSCALE_TILED}) {
            if (kernel == PROSCALE_TILED && !tiled) continue;
            for (const ProscaleType type : {PROSCALE_FLOAT, PROSCALE_HALF, PROSCALE_BFLOAT16}) {
                op.type = type;
                const bool right = type == PROSCALE_FLOAT  ? run<float>(op, 2, kernel, stream)
                                   : type == PROSCALE_HALF ? run<proscale::half>(op, 2, kernel, stream)
                                                           : run<proscale::bfloat16>(op, 2, kernel, stream);
                ++done;
                if (right) continue;
                ++failed;
                std::printf("type %d, kernel %d, %d channels per head: not all of the output is finite\n", type, kernel,
                            op.head_dim);
            }
        }
    }
    check(cudaStreamDestroy(stream), "stream");
    std::printf("%d launches, %d failed\n", done, failed);
    return failed == 0 ? 0 : 1;
}
