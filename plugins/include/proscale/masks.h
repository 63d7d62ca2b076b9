// The math of mask_api.h, once for host and device: masks resized to the output, and what bounds say about a tile of
// it.
//
// A tile hangs on a small window of each mask, and interpolation only averages: every logit of the tile lies between
// the least and the greatest of the window. That settles most queries, and most classes, without looking at pixels.
#pragma once

#include <cmath>
#include <cstdint>

#include "proscale/host_device.h"
#include "proscale/mask_api.h"
#include "proscale/scalar.h"

namespace proscale {

// Of a tile, in output pixels. A row of it is a warp, and a word of a bitmap.
constexpr int kTileWidth = 32;
constexpr int kTileHeight = 16;
constexpr int kTaps = 3;

PROSCALE_HD int smaller(int a, int b) { return a < b ? a : b; }
PROSCALE_HD float smaller(float a, float b) { return a < b ? a : b; }
PROSCALE_HD float larger(float a, float b) { return a > b ? a : b; }

#if !defined(__CUDA_ARCH__)
// exp(x), off by 2 units in the last place; infinite from 88.4 on, where the exponent is full. No call, no branch:
// loops over it become vector code. Cody and Waite's reduction, the polynomial of Cephes' expf.
inline float vectorExponential(float x) {
    constexpr float kLog2e = 1.44269504f, kLn2High = .693359375f, kLn2Low = -2.12194440e-4f;
    constexpr float kRounder = 12582912.f;  // 1.5 * 2^23: what is added to it, is rounded
    const float bounded = larger(smaller(x, 89.f), -87.f);
    const float shifted = bounded * kLog2e + kRounder;
    const float n = shifted - kRounder;
    const float r = bounded - n * kLn2High - n * kLn2Low;
    float sum = 1.9875691500e-4f;
    sum = sum * r + 1.3981999507e-3f;
    sum = sum * r + 8.3334519073e-3f;
    sum = sum * r + 4.1665795894e-2f;
    sum = sum * r + 1.6666665459e-1f;
    sum = sum * r + 5.0000001201e-1f;
    sum = sum * (r * r) + r + 1.f;
    return sum * floatOf((bitsOf(shifted) + 127u) << 23);
}
#endif

// Off by 4e-7 at most.
PROSCALE_HD float sigmoid(float x) {
#if defined(__CUDA_ARCH__)
    return __fdividef(1.f, 1.f + __expf(-x));  // 0 where the exponential is infinite
#else
    return 1.f / (1.f + vectorExponential(-x));
#endif
}

// ---------------------------------------------------------------------------------------------------------------------
// Pixels

// One row or column of the output, for kSamples samples.
template <int kSamples>
struct Weights {
    int32_t offset;  // of its first pixel in the mask, in elements
    float weight[kSamples][kTaps];
    float share;
};

// `step`: elements from one pixel along this axis to the next.
template <int kSamples>
PROSCALE_HD Weights<kSamples> weightsOf(const ProscaleMaskTap& tap, int step) {
    Weights<kSamples> result;
    result.offset = tap.first * step;
    for (int s = 0; s < kSamples; ++s) {
        for (int d = 0; d < kTaps; ++d) result.weight[s][d] = tap.weight[s][d];
    }
    result.share = tap.share;
    return result;
}

PROSCALE_HD float weightedSum(const float* weight, float a, float b, float c) {
    return weight[0] * a + weight[1] * b + weight[2] * c;
}

// `pitch`: elements from one row of the mask to the next.
template <typename T>
PROSCALE_HD float logitAt(const T* mask, int pitch, const Weights<1>& y, const Weights<1>& x) {
    const T* pixels = mask + y.offset + x.offset;
    float row[kTaps];
    for (int d = 0; d < kTaps; ++d, pixels += pitch) {
        row[d] = weightedSum(x.weight[0], toFloat(pixels[0]), toFloat(pixels[1]), toFloat(pixels[2]));
    }
    return weightedSum(y.weight[0], row[0], row[1], row[2]);
}

PROSCALE_HD float blend(float a, float b, float share) { return (1.f - share) * a + share * b; }

template <typename T>
PROSCALE_HD float probabilityAt(const T* mask, int pitch, const Weights<1>& y, const Weights<1>& x) {
    return sigmoid(logitAt(mask, pitch, y, x));
}

// Of the four pixels of the network's input around the output's.
template <typename T>
PROSCALE_HD float probabilityAt(const T* mask, int pitch, const Weights<2>& y, const Weights<2>& x) {
    const T* pixels = mask + y.offset + x.offset;
    float row[2][kTaps];
    for (int d = 0; d < kTaps; ++d, pixels += pitch) {
        const float a = toFloat(pixels[0]), b = toFloat(pixels[1]), c = toFloat(pixels[2]);
        row[0][d] = weightedSum(x.weight[0], a, b, c);
        row[1][d] = weightedSum(x.weight[1], a, b, c);
    }
    float side[2];
    for (int s = 0; s < 2; ++s) {
        side[s] = blend(sigmoid(weightedSum(y.weight[0], row[s][0], row[s][1], row[s][2])),
                        sigmoid(weightedSum(y.weight[1], row[s][0], row[s][1], row[s][2])), y.share);
    }
    return blend(side[0], side[1], x.share);
}

// Floats from .5 to 1 are multiples of 2^-24: of these nothing is lost, and sums are exact in any order.
PROSCALE_HD uint32_t fixedPoint(float probability) {
    return static_cast<uint32_t>(static_cast<int32_t>(probability * 0x1p24f));
}

// ---------------------------------------------------------------------------------------------------------------------
// Tiles

// Pixels from `first` to `last`, exclusive: of the output, or of a mask.
struct Span {
    int32_t first, last;
    PROSCALE_HD int size() const { return last - first; }
};

PROSCALE_HD int tilesOf(int pixels, int tile) { return (pixels + tile - 1) / tile; }

PROSCALE_HD Span tileSpan(int index, int tile, int pixels) {
    return {index * tile, smaller((index + 1) * tile, pixels)};
}

// Which pixels of a mask, along one axis, the output's pixels hang on. Without those of no weight, which would only
// widen the bounds.
PROSCALE_HD Span windowOf(const ProscaleMaskTap* taps, const Span& output, int samples) {
    const auto counts = [samples](const ProscaleMaskTap& tap, int d) {
        return tap.weight[0][d] != 0.f || (samples == 2 && tap.weight[1][d] != 0.f);
    };
    const ProscaleMaskTap &top = taps[output.first], &bottom = taps[output.last - 1];
    int before = 0, after = kTaps - 1;
    while (before < kTaps - 1 && !counts(top, before)) ++before;
    while (after > 0 && !counts(bottom, after)) --after;
    return {top.first + before, bottom.first + after + 1};
}

struct Bounds {
    float least, greatest;
};

// By a few times the rounding error of an interpolated logit.
PROSCALE_HD Bounds widened(const Bounds& bounds) {
    const float slack = 2e-6f * larger(-bounds.least, bounds.greatest);  // of the largest magnitude
    return {bounds.least - slack, bounds.greatest + slack};
}

// Rounding errors of two scores, or sums of many, relative to them. The greatest is the device's exponential, off by
// 2 + 1.173 |x| units in the last place as NVIDIA bounds it for all its GPUs: 1.3e-5 at -88, where a sigmoid ends.
constexpr float kMargin = 3e-5f;

// What one must reach to be the best of a tile, where the best reaches `sure` everywhere.
PROSCALE_HD float winning(float sure) { return sure * (1.f - kMargin); }

// Classes are first summed with this error: queries that hardly change within the tile are replaced by the middle of
// their probabilities. Where that leaves the winner in doubt, they are summed again, with errors below rounding's;
// where all queries change much, as in noise, the first sums are as strict.
constexpr float kTolerance = 3e-5f;
// The tolerance is halved so often at most to find the error of a query up to which all add up to the tolerance.
constexpr int kHalvings = 12;
static_assert(1 << (kHalvings - 1) >= PROSCALE_MOST_QUERIES);
// `sure`: what the best class reaches everywhere.
PROSCALE_HD float strictTolerance(float sure) { return smaller(1e-6f * sure, kTolerance); }
// Two sums may be off by the tolerance each, and by rounding.
constexpr float kClose = 2.5f * kTolerance;
// At first only classes that may reach this share of what any class may reach are summed.
constexpr float kLeading = .25f;

// ---------------------------------------------------------------------------------------------------------------------
// Arguments

inline bool isValid(const ProscaleMasks* masks, int samples) {
    if (masks == nullptr || (masks->type != PROSCALE_FLOAT && masks->type != PROSCALE_HALF)) return false;
    const auto within = [](int64_t x, int64_t most) { return x >= 1 && x <= most; };
    const auto isEdge = [](int64_t x) { return x >= PROSCALE_LEAST_PIXELS && x <= PROSCALE_MOST_PIXELS; };
    return within(masks->samples, samples) && within(masks->queries, PROSCALE_MOST_QUERIES) && isEdge(masks->height) &&
           isEdge(masks->width) && within(masks->output_height, PROSCALE_MOST_PIXELS) &&
           within(masks->output_width, PROSCALE_MOST_PIXELS) && masks->logits != nullptr && masks->rows != nullptr &&
           masks->columns != nullptr;
}

inline bool isValid(const ProscaleMasks* masks, const ProscalePanoptic* task) {
    return isValid(masks, 1) && task != nullptr && task->kept >= 1 && task->kept <= masks->queries &&
           task->query != nullptr && task->score != nullptr && task->codes != nullptr && task->counts != nullptr;
}

inline bool isValid(const ProscaleMasks* masks, const ProscaleSemantic* task) {
    return isValid(masks, 2) && task != nullptr && task->classes >= 1 && task->classes <= PROSCALE_MOST_CLASSES &&
           task->weights != nullptr && task->labels != nullptr && task->scores != nullptr;
}

inline bool isValid(const ProscaleMasks* masks, const ProscaleInstances* task) {
    return isValid(masks, 1) && task != nullptr && task->wanted >= 1 && task->wanted <= masks->queries &&
           task->query != nullptr && task->bits != nullptr && task->stats != nullptr;
}

}  // namespace proscale
