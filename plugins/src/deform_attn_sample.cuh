// What the lanes of the fast kernel hand each other: one sampled point as a record, and adding up its pixels.
//
// In FP16 a sample's weights are rounded to half and its corners are summed in half, two samples at a time, then added
// to FP32 sums: half the instructions of converting each channel, at errors of 2^-11 of the summed magnitudes.
#pragma once

#include <type_traits>

#include "proscale/deform_attn.h"

namespace proscale {

// One sampled point, for one head of one token. Offsets are in bytes, of the left pixel of either row.
template <typename T>
struct alignas(16) Sample {
    uint32_t top;
    half2 topWeights, bottomWeights;  // left, right; 11 bits, as fine as half and finer than bfloat16
    uint32_t bottom;
};

template <>
struct alignas(16) Sample<float> {
    float topLeft, topRight, bottomLeft, bottomRight;
    uint32_t top, bottom;
};

template <typename T>
__device__ __forceinline__ Sample<T> makeSample(float attention, const Taps& x, const Taps& y, uint32_t top,
                                                uint32_t bottom) {
    const float topWeight = attention * y.lowWeight, bottomWeight = attention * y.highWeight;
    const float topLeft = topWeight * x.lowWeight, topRight = topWeight * x.highWeight;
    const float bottomLeft = bottomWeight * x.lowWeight, bottomRight = bottomWeight * x.highWeight;
    if constexpr (std::is_same_v<T, float>) {
        return {topLeft, topRight, bottomLeft, bottomRight, top, bottom};
    } else {
        return {top, __floats2half2_rn(topLeft, topRight), __floats2half2_rn(bottomLeft, bottomRight), bottom};
    }
}

// The four pixels around one sample, 16 bytes of each.
struct Corners {
    uint4 topLeft, topRight, bottomLeft, bottomRight;
};

template <int kSamples>
__device__ __forceinline__ void accumulate(const Sample<half> (&samples)[kSamples], const Corners (&corners)[kSamples],
                                           float (&sum)[8]) {
    const auto pair = [](const uint4& pixel, int i) { return reinterpret_cast<const half2*>(&pixel)[i]; };
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        half2 partial = __hmul2(pair(corners[0].topLeft, i), __low2half2(samples[0].topWeights));
#pragma unroll
        for (int s = 0; s < kSamples; ++s) {
            const auto& [topLeft, topRight, bottomLeft, bottomRight] = corners[s];
            if (s > 0) partial = __hfma2(pair(topLeft, i), __low2half2(samples[s].topWeights), partial);
            partial = __hfma2(pair(topRight, i), __high2half2(samples[s].topWeights), partial);
            partial = __hfma2(pair(bottomLeft, i), __low2half2(samples[s].bottomWeights), partial);
            partial = __hfma2(pair(bottomRight, i), __high2half2(samples[s].bottomWeights), partial);
        }
        const float2 flushed = __half22float2(partial);
        sum[2 * i] += flushed.x;
        sum[2 * i + 1] += flushed.y;
    }
}

__device__ __forceinline__ void add(float weight, const uint4& pixel, float (&sum)[4]) {
    sum[0] += weight * __uint_as_float(pixel.x);
    sum[1] += weight * __uint_as_float(pixel.y);
    sum[2] += weight * __uint_as_float(pixel.z);
    sum[3] += weight * __uint_as_float(pixel.w);
}

// Of bfloat16: each is the upper half of a float.
__device__ __forceinline__ void add(float weight, const uint4& pixel, float (&sum)[8]) {
    const uint32_t pairs[4] = {pixel.x, pixel.y, pixel.z, pixel.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        sum[2 * i] += weight * __uint_as_float(pairs[i] << 16);
        sum[2 * i + 1] += weight * __uint_as_float(pairs[i] & 0xffff0000u);
    }
}

template <int kSamples>
__device__ __forceinline__ void accumulate(const Sample<float> (&samples)[kSamples], const Corners (&corners)[kSamples],
                                           float (&sum)[4]) {
#pragma unroll
    for (int s = 0; s < kSamples; ++s) {
        add(samples[s].topLeft, corners[s].topLeft, sum);
        add(samples[s].topRight, corners[s].topRight, sum);
        add(samples[s].bottomLeft, corners[s].bottomLeft, sum);
        add(samples[s].bottomRight, corners[s].bottomRight, sum);
    }
}

template <int kSamples>
__device__ __forceinline__ void accumulate(const Sample<bfloat16> (&samples)[kSamples],
                                           const Corners (&corners)[kSamples], float (&sum)[8]) {
#pragma unroll
    for (int s = 0; s < kSamples; ++s) {
        const float2 top = __half22float2(samples[s].topWeights), bottom = __half22float2(samples[s].bottomWeights);
        add(top.x, corners[s].topLeft, sum);
        add(top.y, corners[s].topRight, sum);
        add(bottom.x, corners[s].bottomLeft, sum);
        add(bottom.y, corners[s].bottomRight, sum);
    }
}

// Adds kSamples samples, every `stride`-th of `samples`, to `sum`; all loads are under way before the first is used.
template <int kSamples, typename T, int kVector>
__device__ __forceinline__ void gather(const char* value, uint32_t right, const Sample<T>* samples, int stride,
                                       float (&sum)[kVector]) {
    const auto at = [&](uint32_t offset) { return __ldg(reinterpret_cast<const uint4*>(value + offset)); };
    Sample<T> some[kSamples];
    Corners corners[kSamples];
#pragma unroll
    for (int s = 0; s < kSamples; ++s) {
        some[s] = samples[s * stride];
        corners[s] = {at(some[s].top), at(some[s].top + right), at(some[s].bottom), at(some[s].bottom + right)};
    }
    accumulate(some, corners, sum);
}

}  // namespace proscale
