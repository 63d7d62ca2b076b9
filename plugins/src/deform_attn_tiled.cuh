// The fast kernel. A block takes the tokens of one spatial tile, of all levels, for neighbouring heads whose channels
// fill a 128-byte line: what its tokens sample overlaps, so most of it is found in L1.
//
// Eight lanes work on one token, each on 16 bytes of its channels. First they share out the samples: a lane turns its
// own (softmax, position, interpolation weights) into one record in shared memory. Then every lane runs through all
// records, whose loads are broadcasts, and gathers.
#pragma once

#include "deform_attn_sample.cuh"

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
