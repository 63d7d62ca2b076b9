// Bitmaps of masks, and what is known of their positive pixels.
#pragma once

#include "masks_tile.cuh"

namespace proscale {

// Shared memory of a block, for `wanted` masks.
struct InstancesShared {
    int32_t* listed;
    float* greatest;
    uint16_t* list;  // masks that may be positive in the tile

    __host__ __device__ InstancesShared(void* memory, int wanted) {
        listed = static_cast<int32_t*>(memory);
        greatest = reinterpret_cast<float*>(listed + 1);
        list = reinterpret_cast<uint16_t*>(greatest + wanted);
    }
    static constexpr size_t bytes(int wanted) { return 4 + size_t{6} * wanted; }
};
static_assert(InstancesShared::bytes(PROSCALE_MOST_QUERIES) <= 48 * 1024);

// One mask in one tile, by a warp; lane y keeps the word of row y.
template <typename T>
__device__ __forceinline__ uint32_t drawMask(const ProscaleMasks& masks, const T* mask, const Tile& tile,
                                             const Weights<1>& column, ProscaleMaskStats* stats) {
    const int lane = threadIdx.x % 32;
    const bool inside = tile.x.first + lane < tile.x.last;
    uint32_t word = 0, probability = 0;
    for (int y = 0; y < tile.y.size(); ++y) {
        const Weights<1> row = weightsOf<1>(masks.rows[tile.y.first + y], masks.width);
        const float logit = logitAt(mask, masks.width, row, column);
        const bool positive = inside && logit > 0.f;
        const uint32_t all = __ballot_sync(kWholeWarp, positive);
        if (lane == y) word = all;
        if (positive) probability += fixedPoint(sigmoid(logit));  // 16 rows of 2^24: below 2^29
    }
    const uint32_t rows = __ballot_sync(kWholeWarp, word != 0);
    if (rows == 0) return word;
    const uint32_t columns = reduceWarp(word, [](uint32_t a, uint32_t b) { return a | b; });
    const int count = reduceWarp(__popc(word), [](int a, int b) { return a + b; });
    using Total = unsigned long long;
    const Total total = reduceWarp(static_cast<Total>(probability), [](Total a, Total b) { return a + b; });
    if (lane == 0) {
        atomicAdd(reinterpret_cast<Total*>(&stats->probability), total);
        atomicAdd(&stats->count, static_cast<uint32_t>(count));
        atomicMax(&stats->right, static_cast<uint32_t>(tile.x.first + 32 - __clz(columns)));
        atomicMax(&stats->bottom, static_cast<uint32_t>(tile.y.first + 32 - __clz(rows)));
        atomicMax(&stats->from_right, static_cast<uint32_t>(masks.output_width - tile.x.first - __ffs(columns) + 1));
        atomicMax(&stats->from_bottom, static_cast<uint32_t>(masks.output_height - tile.y.first - __ffs(rows) + 1));
    }
    return word;
}

// Grid: tiles of the output, columns x rows. stats: cleared before.
template <typename T>
__global__ void __launch_bounds__(kMaskThreads)
    instanceTiles(const __grid_constant__ ProscaleMasks masks, const __grid_constant__ ProscaleInstances task) {
    extern __shared__ uint4 shared[];
    const InstancesShared block(shared, task.wanted);
    const Tile tile(masks);
    const Scan scan(tile, threadIdx.x % kTeamLanes);
    forTeams(
        task.wanted, [&](int m, int lane) { return boundsOf(maskOf<T>(masks, task.query[m]), tile, scan, lane); },
        [&](int m, const Bounds& bounds) { block.greatest[m] = bounds.greatest; });
    __syncthreads();
    if (threadIdx.x < 32) {
        const int listed = compact(task.wanted, block.list, [&](int m) { return block.greatest[m] > 0.f; });
        if (threadIdx.x == 0) *block.listed = listed;
    }
    const auto wordAt = [&](int m, int y) -> uint32_t& {
        return task.bits[(int64_t{m} * masks.output_height + tile.y.first + y) * gridDim.x + blockIdx.x];
    };
    for (int i = threadIdx.x; i < task.wanted * kTileHeight; i += kMaskThreads) {
        const int m = i / kTileHeight, y = i % kTileHeight;
        if (y < tile.y.size() && !(block.greatest[m] > 0.f)) wordAt(m, y) = 0;
    }
    __syncthreads();

    const int lane = threadIdx.x % 32;
    const Weights<1> column = weightsOf<1>(masks.columns[smaller(tile.x.first + lane, tile.x.last - 1)], 1);
    for (int i = threadIdx.x / 32; i < *block.listed; i += kMaskThreads / 32) {
        const int m = block.list[i];
        const uint32_t word = drawMask(masks, maskOf<T>(masks, task.query[m]), tile, column, task.stats + m);
        if (lane < tile.y.size()) wordAt(m, lane) = word;
    }
}

}  // namespace proscale
