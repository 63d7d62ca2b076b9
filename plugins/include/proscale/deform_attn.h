// The math of ProScaleMSDeformAttn, once for host and device. FP32 inside, whatever the tensors' type is.
//
// Formula: Deformable DETR (Zhu et al., ICLR 2021), equation 3. `value` must be finite: a zero weight does not hide an
// infinity. Offsets may be anything: a sample at an infinite or undefined place adds nothing, but keeps its share of
// the softmax.
#pragma once

#include <cmath>

#include "proscale/geometry.h"
#include "proscale/scalar.h"

namespace proscale {

// max(x, bound), where a NaN gives the bound.
PROSCALE_HD float atLeast(float x, float bound) {
#if defined(__CUDA_ARCH__)
    return fmaxf(x, bound);
#else
    return x > bound ? x : bound;
#endif
}

PROSCALE_HD float exponential(float x) {
#if defined(__CUDA_ARCH__)
    return __expf(x);
#else
    return std::exp(x);
#endif
}

// Linear interpolation along one axis: pixel `low` and the next one, with their weights.
struct Taps {
    int low;
    float lowWeight, highWeight;
};

// The pair is moved inside the map; a weight is max(0, 1 - distance), so whatever lies outside counts as zero.
// On a map of one pixel `low` + 1 does not exist and its weight is zero: read it with a step of 0.
PROSCALE_HD Taps interpolate(float position, int size) {
    const float last = atLeast(static_cast<float>(size - 2), 0.f);
    float low = atLeast(floorf(position), 0.f);
    low = low < last ? low : last;
    const float distance = position - low;
    const float high = atLeast(1.f - fabsf(distance - 1.f), 0.f);
    return {static_cast<int>(low), atLeast(1.f - fabsf(distance), 0.f), size > 1 ? high : 0.f};
}

// Where a token stands: its level, and its centre in pixels of that level, the outer edge being 0.
struct Place {
    int level;
    float x, y;
};

PROSCALE_HD Place placeOf(const Geometry& geometry, int token) {
    int l = 0;
    while (l + 1 < geometry.levels && token >= geometry.level[l + 1].first) ++l;
    const int index = token - geometry.level[l].first;
    const int y = index / geometry.level[l].width;
    return {l, static_cast<float>(index - y * geometry.level[l].width) + .5f, static_cast<float>(y) + .5f};
}

// The place in pixels of level k, where pixel centres are whole numbers.
PROSCALE_HD float positionX(const Geometry& geometry, const Place& place, int k) {
    return place.x * geometry.scale[place.level][k].x - .5f;
}
PROSCALE_HD float positionY(const Geometry& geometry, const Place& place, int k) {
    return place.y * geometry.scale[place.level][k].y - .5f;
}

// Neighbouring channels. On the device they are loaded at once, from a multiple of their size. On the host they are
// read where they stand: a CPU multiplies straight from memory, and a copy would pass through the stack.
#if defined(__CUDACC__)
template <typename T, int kChannels>
struct alignas(sizeof(T) * kChannels) Vector {
    T element[kChannels];
};

template <typename T, int kChannels>
PROSCALE_HD Vector<T, kChannels> load(const T* first) {
    return *reinterpret_cast<const Vector<T, kChannels>*>(first);
}
#else
template <typename T, int kChannels>
struct Vector {
    T element[kChannels];
};

template <typename T, int kChannels>
inline const Vector<T, kChannels>& load(const T* first) {
    return *reinterpret_cast<const Vector<T, kChannels>*>(first);
}
#endif

// One head of one token, kChannels of its channels.
//   value     the image's tokens, at the first of these channels; rows of geometry.channels()
//   sampling  the token's row
//   sum       kChannels results
template <typename T, int kChannels>
PROSCALE_HD void attend(const Geometry& geometry, const Place& place, int head, const T* value, const T* sampling,
                        float* __restrict__ sum) {
    const int perHead = geometry.levels * geometry.points;
    const T* offsets = sampling + 2 * head * perHead;
    const T* logits = sampling + 2 * geometry.samples() + head * perHead;

    float highest = -INFINITY;
    for (int s = 0; s < perHead; ++s) highest = atLeast(toFloat(logits[s]), highest);

    float total = 0.f;
    for (int c = 0; c < kChannels; ++c) sum[c] = 0.f;
    for (int k = 0; k < geometry.levels; ++k) {
        const Level level = geometry.level[k];
        const float centreX = positionX(geometry, place, k), centreY = positionY(geometry, place, k);
        // In elements; 64 bits, because a batch's value may pass 2^31.
        const int64_t right = level.width > 1 ? geometry.channels() : 0;
        const int64_t down = level.height > 1 ? int64_t{level.width} * geometry.channels() : 0;
        for (int p = 0; p < geometry.points; ++p) {
            const int s = k * geometry.points + p;
            const float attention = exponential(toFloat(logits[s]) - highest);
            total += attention;
            const Taps x = interpolate(centreX + toFloat(offsets[2 * s]), level.width);
            const Taps y = interpolate(centreY + toFloat(offsets[2 * s + 1]), level.height);
            const float top = attention * y.lowWeight, bottom = attention * y.highWeight;
            const T* corner =
                value + (level.first + int64_t{y.low} * level.width + x.low) * int64_t{geometry.channels()};
            const float topLeft = top * x.lowWeight, topRight = top * x.highWeight;
            const float bottomLeft = bottom * x.lowWeight, bottomRight = bottom * x.highWeight;
            const auto& pixel00 = load<T, kChannels>(corner);
            const auto& pixel01 = load<T, kChannels>(corner + right);
            const auto& pixel10 = load<T, kChannels>(corner + down);
            const auto& pixel11 = load<T, kChannels>(corner + down + right);
            for (int c = 0; c < kChannels; ++c) {
                sum[c] += topLeft * toFloat(pixel00.element[c]) + topRight * toFloat(pixel01.element[c]) +
                          bottomLeft * toFloat(pixel10.element[c]) + bottomRight * toFloat(pixel11.element[c]);
            }
        }
    }
    for (int c = 0; c < kChannels; ++c) sum[c] /= total;
}

}  // namespace proscale
