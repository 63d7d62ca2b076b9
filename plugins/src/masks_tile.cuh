// What the kernels of masks.cu share: a block works on one tile of the output, first all masks at once, by teams of
// eight lanes, then pixel by pixel with the few masks that matter.
#pragma once

#include "proscale/masks.h"

namespace proscale {

constexpr int kMaskThreads = 256;  // of a block
constexpr int kTeamLanes = 8;
constexpr int kTeams = kMaskThreads / kTeamLanes;
constexpr int kPixelsPerThread = kTileWidth * kTileHeight / kMaskThreads;
constexpr unsigned kWholeWarp = 0xffffffffu;

template <typename T, typename Combine>
__device__ __forceinline__ T reduceTeam(T x, Combine combine) {
#pragma unroll
    for (int step = kTeamLanes / 2; step > 0; step /= 2) {
        x = combine(x, __shfl_xor_sync(kWholeWarp, x, step, kTeamLanes));
    }
    return x;
}

template <typename T, typename Combine>
__device__ __forceinline__ T reduceWarp(T x, Combine combine) {
#pragma unroll
    for (int step = 16; step > 0; step /= 2) x = combine(x, __shfl_xor_sync(kWholeWarp, x, step));
    return x;
}

// Every team takes an item at a time. All lanes stay together: a team without one repeats the last. work(item, lane)
// leaves its result in all lanes; finish(item, result) is called once per item.
template <typename Work, typename Finish>
__device__ __forceinline__ void forTeams(int items, Work work, Finish finish) {
    const int lane = threadIdx.x % kTeamLanes;
    const int team = threadIdx.x / kTeamLanes;
    const int firstOfWarp = threadIdx.x / 32 * 32 / kTeamLanes;
    for (int base = 0; base + firstOfWarp < items; base += kTeams) {
        const int item = smaller(base + team, items - 1);
        const auto result = work(item, lane);
        if (base + team < items && lane == 0) finish(item, result);
    }
}

// The output's pixels of a tile, and the window of every mask that they hang on.
struct Tile {
    Span y, x;
    int pitch, windowWidth, windowPixels, windowStart;

    __device__ explicit Tile(const ProscaleMasks& masks)
        : y(tileSpan(blockIdx.y, kTileHeight, masks.output_height)),
          x(tileSpan(blockIdx.x, kTileWidth, masks.output_width)),
          pitch(masks.width) {
        const Span rows = windowOf(masks.rows, y, masks.samples);
        const Span columns = windowOf(masks.columns, x, masks.samples);
        windowWidth = columns.size();
        windowPixels = rows.size() * columns.size();
        windowStart = rows.first * pitch + columns.first;
    }
    __device__ int pixels() const { return y.size() * x.size(); }
};

// A lane's way through the window.
struct Scan {
    int column, offset, columnStep, offsetStep;

    __device__ Scan(const Tile& tile, int lane)
        : column(lane % tile.windowWidth),
          offset(tile.windowStart + lane / tile.windowWidth * tile.pitch + column),
          columnStep(kTeamLanes % tile.windowWidth),
          offsetStep(kTeamLanes / tile.windowWidth * tile.pitch + columnStep) {}

    __device__ void advance(const Tile& tile) {
        column += columnStep;
        offset += offsetStep;
        if (column >= tile.windowWidth) {
            column -= tile.windowWidth;
            offset += tile.pitch - tile.windowWidth;
        }
    }
};

// The bounds of one mask in the tile, in all lanes of a team; `scan` is at the lane's first pixel.
template <typename T>
__device__ __forceinline__ Bounds boundsOf(const T* mask, const Tile& tile, Scan scan, int lane) {
    Bounds bounds{INFINITY, -INFINITY};
    for (int i = lane; i < tile.windowPixels; i += kTeamLanes) {
        const float logit = toFloat(mask[scan.offset]);
        bounds = {fminf(bounds.least, logit), fmaxf(bounds.greatest, logit)};
        scan.advance(tile);
    }
    return widened({reduceTeam(bounds.least, [](float a, float b) { return fminf(a, b); }),
                    reduceTeam(bounds.greatest, [](float a, float b) { return fmaxf(a, b); })});
}

// Writes those of 0 ... count - 1 which keep() wants to `list`, rising; called by a whole warp. Returns their number.
template <typename Keep>
__device__ __forceinline__ int compact(int count, uint16_t* list, Keep keep) {
    const int lane = threadIdx.x % 32;
    int found = 0;
    for (int base = 0; base < count; base += 32) {
        const bool kept = base + lane < count && keep(base + lane);
        const unsigned all = __ballot_sync(kWholeWarp, kept);
        if (kept) list[found + __popc(all & ((1u << lane) - 1))] = static_cast<uint16_t>(base + lane);
        found += __popc(all);
    }
    return found;
}

// The pixels of one thread: lane and warp are column and row, every kRowStep-th row. Those beyond the output repeat its
// last row or column.
template <int kSamples>
struct ThreadPixels {
    static constexpr int kRowStep = kTileHeight / kPixelsPerThread;
    Weights<kSamples> column;
    Weights<kSamples> row[kPixelsPerThread];
    bool valid[kPixelsPerThread];

    __device__ ThreadPixels(const ProscaleMasks& masks, const Tile& tile) {
        const int x = tile.x.first + threadIdx.x % kTileWidth;
        column = weightsOf<kSamples>(masks.columns[smaller(x, tile.x.last - 1)], 1);
#pragma unroll
        for (int p = 0; p < kPixelsPerThread; ++p) {
            const int y = tile.y.first + threadIdx.x / kTileWidth + p * kRowStep;
            row[p] = weightsOf<kSamples>(masks.rows[smaller(y, tile.y.last - 1)], masks.width);
            valid[p] = x < tile.x.last && y < tile.y.last;
        }
    }
    // In the output.
    __device__ int64_t index(const ProscaleMasks& masks, int p) const {
        const int y = blockIdx.y * kTileHeight + threadIdx.x / kTileWidth + p * kRowStep;
        return int64_t{y} * masks.output_width + blockIdx.x * kTileWidth + threadIdx.x % kTileWidth;
    }
};

// Mask `query` of the image.
template <typename T>
__device__ __forceinline__ const T* maskOf(const ProscaleMasks& masks, int query) {
    return static_cast<const T*>(masks.logits) + int64_t{query} * masks.height * masks.width;
}

}  // namespace proscale
