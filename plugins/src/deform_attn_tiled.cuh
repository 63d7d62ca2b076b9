// The fast kernel. A block takes the tokens of one spatial tile, of all levels, for neighbouring heads whose channels
// fill a 128-byte line: what its tokens sample overlaps, so most of it is found in L1.
//
// Eight lanes work on one token, each on 16 bytes of its channels. First they share out the samples: a lane turns its
// own (softmax, position, interpolation weights) into one record in shared memory. Then every lane runs through all
// records, whose loads are broadcasts, and gathers.
//
// In FP16 a sample's weights are rounded to half and its corners are summed in half, two samples at a time, then added
// to FP32 sums: half the instructions of converting each channel, at an error of 2^-11 of the summed magnitudes.
#pragma once

#include "proscale/deform_attn.h"

namespace proscale {

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

// One sampled point, for one head of one token. Offsets are in bytes from the first token's part of a lane.
template <typename T>
struct alignas(16) Sample {
    float topLeft, topRight, bottomLeft, bottomRight;
    uint32_t top, bottom;  // of the left pixel of either row
};

template <>
struct alignas(16) Sample<half> {
    uint32_t top;
    half2 topWeights, bottomWeights;  // left, right
    uint32_t bottom;
};

template <typename T>
__device__ __forceinline__ Sample<T> makeSample(float attention, const Taps& x, const Taps& y, uint32_t top,
                                                uint32_t down) {
    const float topWeight = attention * y.lowWeight, bottomWeight = attention * y.highWeight;
    Sample<T> sample;
    sample.top = top;
    sample.bottom = top + down;
    if constexpr (sizeof(Sample<T>) == 16) {
        sample.topWeights = __floats2half2_rn(topWeight * x.lowWeight, topWeight * x.highWeight);
        sample.bottomWeights = __floats2half2_rn(bottomWeight * x.lowWeight, bottomWeight * x.highWeight);
    } else {
        sample.topLeft = topWeight * x.lowWeight;
        sample.topRight = topWeight * x.highWeight;
        sample.bottomLeft = bottomWeight * x.lowWeight;
        sample.bottomRight = bottomWeight * x.highWeight;
    }
    return sample;
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

template <typename T, int kSamples, int kVector>
__device__ __forceinline__ void accumulate(const Sample<T> (&samples)[kSamples], const Corners (&corners)[kSamples],
                                           float (&sum)[kVector]) {
#pragma unroll
    for (int s = 0; s < kSamples; ++s) {
        const auto add = [&](float weight, const uint4& pixel) {
#pragma unroll
            for (int c = 0; c < kVector; ++c) sum[c] += weight * toFloat(reinterpret_cast<const T*>(&pixel)[c]);
        };
        add(samples[s].topLeft, corners[s].topLeft);
        add(samples[s].topRight, corners[s].topRight);
        add(samples[s].bottomLeft, corners[s].bottomLeft);
        add(samples[s].bottomRight, corners[s].bottomRight);
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

constexpr int kTiledThreads = 128;

// Dynamic shared memory of one block: its windows, then the samples of the tokens that it works on at a time.
constexpr size_t kWindowBytes = (sizeof(Window) * (kMaxLevels + 1) + 15) / 16 * 16;

template <typename T, int kHeadDim>
size_t tiledSharedBytes(const Geometry& geometry, int threads) {
    const int tokens = threads / Lanes<T, kHeadDim>::kPerToken;
    return kWindowBytes + sizeof(Sample<T>) * tokens * Lanes<T, kHeadDim>::kHeads * geometry.levels * geometry.points;
}

// Grid: tiles x groups of heads x images, the tiles fastest: on a small chip the value of one group stays in L2.
// Conditions, checked by the launcher: head_dim is kHeadDim; heads a multiple of Lanes::kHeads; no level narrower or
// lower than 2; value and output aligned to 16 bytes, sampling to two elements, its rows even; one image below 4 GiB.
template <typename T, int kHeadDim>
__global__ void __launch_bounds__(kTiledThreads)
    deformAttnTiled(const __grid_constant__ Geometry geometry, Tiling tiling, const T* __restrict__ value, const T* __restrict__ sampling,
                    T* __restrict__ output) {
    using L = Lanes<T, kHeadDim>;
    extern __shared__ uint4 shared[];
    auto* const windows = reinterpret_cast<Window*>(shared);
    auto* const allSamples = reinterpret_cast<Sample<T>*>(shared + kWindowBytes / sizeof(uint4));

    const int tiles = tiling.columns * tiling.rows;
    const int tile = blockIdx.x % tiles;
    const int headGroups = geometry.heads / L::kHeads;
    const int headGroup = blockIdx.x / tiles % headGroups;
    const int image = blockIdx.x / tiles / headGroups;

    if (threadIdx.x == 0) {
        const int column = tile % tiling.columns, row = tile / tiling.columns;
        int queries = 0;
        for (int l = 0; l < geometry.levels; ++l) {
            const auto [height, width, first] = geometry.level[l];
            const int left = column * width / tiling.columns, right = (column + 1) * width / tiling.columns;
            const int top = row * height / tiling.rows, bottom = (row + 1) * height / tiling.rows;
            windows[l] = {queries, first + top * width + left, right - left, width, 1.f / (right - left), left + .5f,
                          top + .5f};
            queries += (right - left) * (bottom - top);
        }
        windows[geometry.levels].firstQuery = queries;
    }
    __syncthreads();
    const int queries = windows[geometry.levels].firstQuery;

    const int slot = threadIdx.x / L::kPerToken;  // which of the tokens that the block works on at a time
    const int slots = blockDim.x / L::kPerToken;
    const int headInGroup = threadIdx.x % L::kPerToken / L::kPerHead;
    const int part = threadIdx.x % L::kPerHead;  // which 16 bytes of the head
    const int head = headGroup * L::kHeads + headInGroup;
    const int perHead = geometry.levels * geometry.points;
    const float perPoint = 1.f / geometry.points;
    const uint32_t rowBytes = geometry.channels() * sizeof(T);
    const int64_t firstToken = int64_t{image} * geometry.tokens;
    const int channel = head * kHeadDim + part * L::kVector;
    const char* const laneValue = reinterpret_cast<const char*>(value + firstToken * geometry.channels() + channel);
    // The heads' records alternate: what eight lanes read or write at a time lies in different banks.
    Sample<T>* const samples = allSamples + slot * L::kHeads * perHead + headInGroup;

    // All lanes of a warp stay together: those past the last query repeat it, and store nothing.
    const int slotOfWarp = threadIdx.x / 32 * 32 / L::kPerToken;
    for (int base = 0; base + slotOfWarp < queries; base += slots) {
        const int query = min(base + slot, queries - 1);
        int l = 0;
        while (query >= windows[l + 1].firstQuery) ++l;
        const Window window = windows[l];
        const int index = query - window.firstQuery;
        const int y = static_cast<int>((index + .5f) * window.perWidth);  // exact: a tile has far less than 2^20 tokens
        const int x = index - y * window.width;
        const int64_t token = firstToken + window.firstToken + y * window.levelWidth + x;
        const Place place{l, window.x + x, window.y + y};

        const T* const row = sampling + token * geometry.samplingWidth();
        const T* const offsets = row + 2 * head * perHead;
        const T* const logits = row + 2 * geometry.samples() + head * perHead;
        float highest = -INFINITY;
        for (int s = part; s < perHead; s += L::kPerHead) highest = atLeast(toFloat(logits[s]), highest);
        highest = reduce<L::kPerHead>(highest, [](float a, float b) { return fmaxf(a, b); });

        float total = 0.f;
        for (int s = part; s < perHead; s += L::kPerHead) {
            const int k = static_cast<int>((s + .5f) * perPoint);
            const Level level = geometry.level[k];
            const float attention = exponential(toFloat(logits[s]) - highest);
            const auto offset = load<T, 2>(offsets + 2 * s);
            const Taps tapsX = interpolate(positionX(geometry, place, k) + toFloat(offset.element[0]), level.width);
            const Taps tapsY = interpolate(positionY(geometry, place, k) + toFloat(offset.element[1]), level.height);
            const uint32_t top = (level.first + tapsY.low * level.width + tapsX.low) * rowBytes;
            samples[s * L::kHeads] = makeSample<T>(attention, tapsX, tapsY, top, level.width * rowBytes);
            total += attention;
        }
        total = reduce<L::kPerHead>(total, [](float a, float b) { return a + b; });
        __syncwarp();

        float sum[L::kVector] = {};
        int s = 0;
        for (; s + 1 < perHead; s += 2) gather<2>(laneValue, rowBytes, samples + s * L::kHeads, L::kHeads, sum);
        if (s < perHead) gather<1>(laneValue, rowBytes, samples + s * L::kHeads, L::kHeads, sum);
        __syncwarp();  // before the next token's samples

        if (base + slot < queries) {
            struct alignas(16) Result {
                T element[L::kVector];
            } result;
            const float scale = 1.f / total;
#pragma unroll
            for (int c = 0; c < L::kVector; ++c) result.element[c] = fromFloat<T>(sum[c] * scale);
            *reinterpret_cast<Result*>(output + token * geometry.channels() + channel) = result;
        }
    }
}

}  // namespace proscale
