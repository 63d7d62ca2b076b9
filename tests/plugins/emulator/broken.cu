// Kernels with one fault each, which the machine must find, and the same kernel without a fault:
//     broken FAULT SEED
// Exit status 1: the launch failed. The result is printed.
#include <cstdio>
#include <cstdlib>
#include <string>

#include "launch_kernel.cuh"

namespace proscale {

enum class Fault {
    kNone,
    kBarrier,
    kWarpBarrier,
    kOnlyShuffle,
    kExit,
    kMask,
    kSource,
    kDeadlock,
    kGuard,
    kShared,
    kGlobal,
    kMisaligned,
    kCount
};
constexpr const char* kFaults[] = {"none",   "barrier",  "warp_barrier", "only_shuffle", "exit",   "mask",
                                   "source", "deadlock", "guard",        "shared",       "global", "misaligned"};

constexpr int kThreads = 64;

// Reverses the input within the block, then sums it over each warp.
__global__ void __launch_bounds__(kThreads) reverseAndSum(Fault fault, const float* __restrict__ input, float* output) {
    extern __shared__ uint4 shared[];
    auto* const numbers = reinterpret_cast<float*>(shared);
    const int thread = static_cast<int>(threadIdx.x), lane = thread % 32;
    if (fault == Fault::kExit && thread == 5) return;

    numbers[thread] = input[blockIdx.x * kThreads + thread];
    if (fault == Fault::kGuard && thread == 0) numbers[kThreads] = 1.f;
    if (fault == Fault::kShared && thread == 0) numbers[kThreads * 100] = 1.f;
    if (fault != Fault::kBarrier) __syncthreads();
    float sum = numbers[kThreads - 1 - thread];

    // The upper half of the warp takes the lower half's number first.
    if (fault == Fault::kOnlyShuffle) __shfl_xor_sync(0xffffffffu, 0, 1);
    if (fault != Fault::kBarrier && fault != Fault::kOnlyShuffle) __syncthreads();
    numbers[thread] = sum;
    if (fault != Fault::kWarpBarrier) __syncwarp();
    sum = numbers[thread / 32 * 32 + (lane + 16) % 32];

    unsigned mask = 0xffffffffu;
    if (fault == Fault::kMask && lane == 3) mask = 0xfu << 8;
    if (fault == Fault::kDeadlock && lane == 3) __syncthreads();
    if (fault == Fault::kSource) {
        if (lane < 16) sum += __shfl_sync(0xffffu, sum, lane + 16);
    } else {
        for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(mask, sum, step);
    }

    float* to = output + blockIdx.x * kThreads + thread;
    if (fault == Fault::kGlobal && thread == kThreads - 1 && blockIdx.x == gridDim.x - 1) ++to;
    *to = sum;
    if (fault == Fault::kMisaligned) *reinterpret_cast<float2*>(output + 1) = float2{};
}

}  // namespace proscale

int main(int count, char** arguments) {
    using namespace proscale;
    if (count != 3) return 2;
    int fault = 0;
    while (fault < static_cast<int>(Fault::kCount) && arguments[1] != std::string(kFaults[fault])) ++fault;
    constexpr unsigned kBlocks = 2;
    std::vector<float> input(kBlocks * kThreads), output(kBlocks * kThreads);
    for (size_t i = 0; i < input.size(); ++i) input[i] = static_cast<float>(i);
    emulator::setSeed(std::strtoull(arguments[2], nullptr, 10));
    const cudaError_t error = launch(reverseAndSum, dim3(kBlocks), dim3(kThreads), kThreads * sizeof(float), nullptr,
                                     static_cast<Fault>(fault), input.data(), output.data());
    if (error != cudaSuccess) {
        std::fprintf(stderr, "%s\n", emulator::error().c_str());
        return 1;
    }
    for (const float x : output) std::printf("%g ", x);
    return 0;
}
