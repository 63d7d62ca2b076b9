// The fast kernel. A block takes the tokens of one spatial tile, of all levels, for neighbouring heads whose channels
// fill a 128-byte line: what its tokens sample overlaps, so most of it is found in L1.
//
// Eight lanes work on one token, each on 16 bytes of its channels. First they share out the samples: a lane turns its
// own (softmax, position, interpolation weights) into one record in shared memory. Then every lane runs through all
// records, whose loads are broadcasts, and gathers.
//
// In FP16 a sample's weights are rounded to half and its corners are summed in half, two samples at a time, then added
// to FP32 sums: half the instructions of converting each channel, at errors of 2^-11 of the summed magnitudes.
#pragma once

#include <type_traits>

#include "proscale/deform_attn.h"

namespace proscale {

// Deformable DETR's, which Mask2Former and PRO-SCALE keep.
constexpr int kPublishedHeads = 8;
constexpr int kPublishedHeadDim = 32;
constexpr int kPublishedPoints = 4;

// How the tokens are cut: tile (x, y) has the columns from x * W / columns to (x + 1) * W / columns of every level.
struct Tiling {
    int32_t columns, rows;
};

// A tile's part of one level.
struct Window {
    int32_t firstQuery;  // of the tile's queries, numbered over all levels
    int32_t firstToken;
    int32_t width, levelWidth;
    float perWidth;  // 1 / width
    float x, y;      // centre of its first token, as in Place
};

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

// How the threads share the work of one token.
template <typename T, int kHeadDim>
struct Lanes {
    static constexpr int kVector = 16 / sizeof(T);
    static constexpr int kPerHead = kHeadDim / kVector;
    static constexpr int kPerToken = kPerHead > 8 ? kPerHead : 8;
    static constexpr int kHeads = kPerToken / kPerHead;
};

template <int kWidth, typename Combine>
__device__ __forceinline__ float reduce(float x, Combine combine) {
#pragma unroll
    for (int step = kWidth / 2; step > 0; step /= 2) x = combine(x, __shfl_xor_sync(0xffffffffu, x, step, kWidth));
    return x;
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

constexpr int kTiledThreads = 128;  // of a block, at most

// Dynamic shared memory of one block: its windows and their end, then the samples of the tokens it works on at a time.
constexpr size_t kWindowBytes = (sizeof(Window) * (kMaxLevels + 1) + 15) / 16 * 16;

template <typename T, int kHeadDim>
size_t tiledSharedBytes(const Geometry& geometry, int threads) {
    const int tokens = threads / Lanes<T, kHeadDim>::kPerToken;
    return kWindowBytes + sizeof(Sample<T>) * tokens * Lanes<T, kHeadDim>::kHeads * geometry.levels * geometry.points;
}

// Windows of one tile, written by the first warp; those past the last level are empty.
__device__ __forceinline__ void cutWindows(const Geometry& geometry, const Tiling& tiling, unsigned column,
                                           unsigned row, Window* windows) {
    const int l = threadIdx.x;
    Window window{};
    int count = 0;
    if (l < geometry.levels) {
        const Level level = geometry.level[l];
        const int left = column * level.width / tiling.columns, right = (column + 1) * level.width / tiling.columns;
        const int top = row * level.height / tiling.rows, bottom = (row + 1) * level.height / tiling.rows;
        window = {0,           level.first + top * level.width + left, right - left,
                  level.width, __fdividef(1.f, right - left),          left + .5f,
                  top + .5f};
        count = (right - left) * (bottom - top);
    }
    int end = count;
#pragma unroll
    for (int step = 1; step <= kMaxLevels; step *= 2) {
        const int before = __shfl_up_sync(0xffffffffu, end, step);
        if (l >= step) end += before;
    }
    window.firstQuery = end - count;
    if (l <= kMaxLevels) windows[l] = window;
}

// Grid: columns x rows of tiles x (images x groups of heads), the tiles fastest: on a small chip the value of one group
// stays in L2. kLevels > 0 is the published models' shape (8 heads of kHeadDim channels, 4 points), its loops unrolled;
// 0 reads the shape from `geometry`. Eight blocks leave 64 registers a thread, enough for the pixels of four samples;
// left to itself nvcc takes 56 and spills.
// Conditions, checked by the launcher: the shape is as said; heads a multiple of Lanes::kHeads; no level narrower or
// lower than 2; value and output aligned to 16 bytes, sampling to two elements, its rows even; one image below 4 GiB;
// below 2^20 tokens in a tile.
template <typename T, int kHeadDim, int kLevels>
__global__ void __launch_bounds__(kTiledThreads, kLevels > 0 ? 8 : 7)
    deformAttnTiled(const __grid_constant__ Geometry geometry, const Tiling tiling, const T* __restrict__ value,
                    const T* __restrict__ sampling, T* __restrict__ output) {
    using L = Lanes<T, kHeadDim>;
    const int heads = kLevels > 0 ? kPublishedHeads : geometry.heads;
    const int points = kLevels > 0 ? kPublishedPoints : geometry.points;
    const int perHead = points * (kLevels > 0 ? kLevels : geometry.levels);
    const int channels = heads * kHeadDim;
    const uint32_t rowBytes = channels * sizeof(T);

    extern __shared__ uint4 shared[];
    auto* const windows = reinterpret_cast<Window*>(shared);
    if (threadIdx.x < 32) cutWindows(geometry, tiling, blockIdx.x, blockIdx.y, windows);
    __syncthreads();
    const int queries = windows[kMaxLevels].firstQuery;

    const int slot = threadIdx.x / L::kPerToken;  // which of the tokens that the block works on at a time
    const int slots = blockDim.x / L::kPerToken;
    const int headInGroup = threadIdx.x % L::kPerToken / L::kPerHead;
    const int part = threadIdx.x % L::kPerHead;  // which 16 bytes of the head
    const unsigned headGroups = heads / L::kHeads;
    const int head = blockIdx.z % headGroups * L::kHeads + headInGroup;
    const int64_t firstToken = int64_t{blockIdx.z / headGroups} * geometry.tokens;
    const int channel = head * kHeadDim + part * L::kVector;
    const char* const laneValue = reinterpret_cast<const char*>(value + firstToken * channels + channel);
    // The heads' records alternate: what eight lanes read or write at a time lies in different banks.
    Sample<T>* const samples =
        reinterpret_cast<Sample<T>*>(shared + kWindowBytes / sizeof(uint4)) + slot * L::kHeads * perHead + headInGroup;

    // All lanes of a warp stay together: those past the last query repeat it, and store nothing.
    const int slotOfWarp = threadIdx.x / 32 * 32 / L::kPerToken;
    for (int base = 0; base + slotOfWarp < queries; base += slots) {
        const int query = min(base + slot, queries - 1);
        int l = 0;
        while (query >= windows[l + 1].firstQuery) ++l;
        const Window window = windows[l];
        const int index = query - window.firstQuery;
        const int y = static_cast<int>((index + .5f) * window.perWidth);  // exact below 2^20 tokens
        const int x = index - y * window.width;
        const int64_t token = firstToken + window.firstToken + y * window.levelWidth + x;
        const Place place{l, window.x + x, window.y + y};

        const T* const row = sampling + token * (3 * heads * perHead);
        const T* const offsets = row + 2 * head * perHead;
        const T* const logits = row + (2 * heads + head) * perHead;
        const auto leave = [&](int s, float attention, const Vector<T, 2>& offset) {
            const int k = kLevels > 0 ? s / points : static_cast<int>((s + .5f) * __fdividef(1.f, points));
            const Level level = geometry.level[k];
            const Taps tapsX = interpolate(positionX(geometry, place, k) + toFloat(offset.element[0]), level.width);
            const Taps tapsY = interpolate(positionY(geometry, place, k) + toFloat(offset.element[1]), level.height);
            const uint32_t top = (level.first + tapsY.low * level.width + tapsX.low) * rowBytes;
            samples[s * L::kHeads] = makeSample<T>(attention, tapsX, tapsY, top, top + level.width * rowBytes);
        };
        // All weights are halved with their sum: those of two samples make 1 at most, so that sums in half stay finite.
        constexpr float kLn2 = 0.693147181f;
        const auto highestOf = [](float a, float b) { return atLeast(a, b); };
        float highest = -INFINITY, total = 0.f;
        if constexpr (kLevels > 0) {
            // In registers, so that all loads are under way at once.
            constexpr int kRounds = (kLevels * kPublishedPoints + L::kPerHead - 1) / L::kPerHead;
            float logit[kRounds];
            Vector<T, 2> offset[kRounds];
#pragma unroll
            for (int r = 0; r < kRounds; ++r) {
                const int s = min(part + r * L::kPerHead, perHead - 1);
                logit[r] = toFloat(logits[s]);
                offset[r] = load<T, 2>(offsets + 2 * s);
            }
#pragma unroll
            for (int r = 0; r < kRounds; ++r) highest = highestOf(logit[r], highest);
            highest = reduce<L::kPerHead>(highest, highestOf) + kLn2;
#pragma unroll
            for (int r = 0; r < kRounds; ++r) {
                const int s = part + r * L::kPerHead;
                if (s >= perHead) break;
                const float attention = exponential(logit[r] - highest);
                leave(s, attention, offset[r]);
                total += attention;
            }
        } else {
            for (int s = part; s < perHead; s += L::kPerHead) highest = highestOf(toFloat(logits[s]), highest);
            highest = reduce<L::kPerHead>(highest, highestOf) + kLn2;
            for (int s = part; s < perHead; s += L::kPerHead) {
                const float attention = exponential(toFloat(logits[s]) - highest);
                leave(s, attention, load<T, 2>(offsets + 2 * s));
                total += attention;
            }
        }
        total = reduce<L::kPerHead>(total, [](float a, float b) { return a + b; });
        __syncwarp();

        float sum[L::kVector] = {};
        int s = 0;
#pragma unroll(kLevels > 0 ? 2 : 1)
        for (; s + 1 < perHead; s += 2) gather<2>(laneValue, rowBytes, samples + s * L::kHeads, L::kHeads, sum);
        if (s < perHead) gather<1>(laneValue, rowBytes, samples + s * L::kHeads, L::kHeads, sum);
        __syncwarp();  // before the next token's samples

        if (base + slot < queries) {
            const float scale = __fdividef(1.f, total);
            Vector<T, L::kVector> result;
#pragma unroll
            for (int c = 0; c < L::kVector; ++c) result.element[c] = fromFloat<T>(sum[c] * scale);
            uint4 bits;
            memcpy(&bits, &result, sizeof bits);
            __stcg(reinterpret_cast<uint4*>(output + token * channels + channel), bits);  // L1 is for the value
        }
    }
}

}  // namespace proscale
