// The readable kernel: one thread makes kChannels neighbouring channels of one head of one token.
#pragma once

#include "proscale/deform_attn.h"

namespace proscale {

constexpr int kPlainThreads = 256;  // of a block

// items      batch * tokens * heads * (headDim / kChannels)
// value, sampling, output   as in c_api.h; `value` and `output` aligned to kChannels elements, of which headDim is a
//                           multiple
template <typename T, int kChannels>
__global__ void __launch_bounds__(kPlainThreads)
    deformAttnPlain(const __grid_constant__ Geometry geometry, int64_t items, const T* __restrict__ value,
                    const T* __restrict__ sampling, T* __restrict__ output) {
    const int64_t item = int64_t{blockIdx.x} * kPlainThreads + threadIdx.x;
    if (item >= items) return;

    // Neighbouring threads take neighbouring channels: their loads and stores fall into the same lines of memory.
    const int vectorsPerToken = geometry.channels() / kChannels;
    const int64_t row = item / vectorsPerToken;  // counted over the tokens of all images
    const int channel = static_cast<int>(item - row * vectorsPerToken) * kChannels;
    const int64_t image = row / geometry.tokens;
    const Place place = placeOf(geometry, static_cast<int>(row - image * geometry.tokens));

    float sum[kChannels];
    attend<T, kChannels>(geometry, place, channel / geometry.headDim,
                         value + image * geometry.tokens * geometry.channels() + channel,
                         sampling + row * geometry.samplingWidth(), sum);
    Vector<T, kChannels> result;
    for (int c = 0; c < kChannels; ++c) result.element[c] = fromFloat<T>(sum[c]);
    *reinterpret_cast<Vector<T, kChannels>*>(output + row * geometry.channels() + channel) = result;
}

}  // namespace proscale
