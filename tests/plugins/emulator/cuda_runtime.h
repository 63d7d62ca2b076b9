// What nvcc adds to the runtime's C functions: the language, launches, the intrinsics that the kernels use.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <tuple>
#include <type_traits>
#include <vector>

#include "cuda_runtime_api.h"

// The kernels' headers take their device branches. After the standard headers, which know these names too.
#define __CUDACC__
#define __CUDA_ARCH__ 900

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __grid_constant__
#define __launch_bounds__(...)
#define __shared__

inline void __syncthreads() { emulator::syncThreads(); }
inline void __syncwarp(unsigned mask = 0xffffffffu) { emulator::syncWarp(mask); }

// Shuffles work on segments of `width` lanes; who would read from beyond its segment reads its own value.
namespace emulator {
template <typename T>
T shuffle(unsigned mask, T mine, unsigned source) {
    static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= 8);
    T theirs;
    exchange(mask, source, &mine, &theirs, sizeof(T));
    return theirs;
}
inline unsigned segmentEnd(int width) { return lane() | (static_cast<unsigned>(width) - 1); }
}  // namespace emulator

template <typename T>
T __shfl_sync(unsigned mask, T mine, int source, int width = 32) {
    const unsigned within = static_cast<unsigned>(width) - 1;
    return emulator::shuffle(mask, mine, (emulator::lane() & ~within) | (static_cast<unsigned>(source) & within));
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T mine, int laneMask, int width = 32) {
    const unsigned source = emulator::lane() ^ static_cast<unsigned>(laneMask);
    return emulator::shuffle(mask, mine, source <= emulator::segmentEnd(width) ? source : emulator::lane());
}
template <typename T>
T __shfl_up_sync(unsigned mask, T mine, unsigned delta, int width = 32) {
    const unsigned first = emulator::lane() & ~(static_cast<unsigned>(width) - 1);
    return emulator::shuffle(mask, mine,
                             emulator::lane() >= first + delta ? emulator::lane() - delta : emulator::lane());
}

inline unsigned __ballot_sync(unsigned mask, bool vote) { return emulator::ballot(mask, vote); }

// Threads of one block take turns, but the race detector has to know that these may meet.
namespace emulator {
template <typename T, typename Change>
T atomically(T* at, Change change) {
    T old = __atomic_load_n(at, __ATOMIC_RELAXED);
    while (!__atomic_compare_exchange_n(at, &old, change(old), false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
    return old;
}
template <typename T>
using Same = std::common_type_t<T>;  // keeps an argument from taking part in the choice of T
}  // namespace emulator

template <typename T>
T atomicAdd(T* at, emulator::Same<T> x) {
    return emulator::atomically(at, [x](T old) { return old + x; });
}
template <typename T>
T atomicMax(T* at, emulator::Same<T> x) {
    return emulator::atomically(at, [x](T old) { return old < x ? x : old; });
}
template <typename T>
T atomicMin(T* at, emulator::Same<T> x) {
    return emulator::atomically(at, [x](T old) { return x < old ? x : old; });
}

inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline int __ffs(int bits) { return __builtin_ffs(bits); }
inline int __clz(int bits) { return bits ? __builtin_clz(static_cast<unsigned>(bits)) : 32; }

template <typename T>
T __ldg(const T* from) {
    return *from;
}
template <typename T>
void __stcg(T* to, T value) {
    *to = value;
}

// The device's approximate functions err by up to two units in the last place; here they always do, either way.
namespace emulator {
inline float approximate(float exact) {
    if (exact == 0.f || !std::isfinite(exact)) return exact;
    int32_t bits;
    std::memcpy(&bits, &exact, sizeof bits);
    const float toward = static_cast<uint32_t>(bits) * 2654435761u >> 31 ? 0.f : HUGE_VALF;
    return std::nextafter(std::nextafter(exact, toward), toward);
}
}  // namespace emulator

// The rounding of the product is what makes the device's __expf coarser than exp for large arguments.
inline float __expf(float x) { return emulator::approximate(std::exp2(x * 1.44269504f)); }
inline float __fdividef(float x, float y) { return emulator::approximate(x / y); }
inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selectors) {
    const uint64_t bytes = uint64_t{y} << 32 | x;
    unsigned result = 0;
    for (int i = 0; i < 4; ++i) result |= static_cast<unsigned>(bytes >> 8 * (selectors >> 4 * i & 7) & 255) << 8 * i;
    return result;
}
inline float __uint_as_float(unsigned bits) {
    float x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
}
inline float __int_as_float(int bits) { return __uint_as_float(static_cast<unsigned>(bits)); }
inline int __float_as_int(float x) {
    int bits;
    std::memcpy(&bits, &x, sizeof bits);
    return bits;
}

template <typename T>
constexpr T min(T a, T b) {
    return b < a ? b : a;
}
template <typename T>
constexpr T max(T a, T b) {
    return a < b ? b : a;
}

namespace emulator {
void setProcessors(int count);

// cudaSuccess, or why such a launch is refused.
cudaError_t check(const cudaLaunchConfig_t& config);
}  // namespace emulator

template <typename... Parameters, typename... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
    const cudaError_t refused = emulator::check(*config);
    if (refused != cudaSuccess) return refused;
    const std::tuple<std::decay_t<Parameters>...> parameters(arguments...);
    const bool ran = emulator::run(config->gridDim, config->blockDim, config->dynamicSmemBytes,
                                   [&] { std::apply(kernel, parameters); });
    return ran ? cudaSuccess : cudaErrorLaunchFailure;
}
