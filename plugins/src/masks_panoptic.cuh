// Who wins each pixel.
#pragma once

#include "masks_tile.cuh"

namespace proscale {

// Of a query in a tile: it may win a pixel; its mask holds some pixels, perhaps, and others not.
constexpr int kContends = 1, kCrosses = 2;

// Shared memory of a block, for `kept` queries: bounds, counts, the list of those looked at pixel by pixel.
struct PanopticShared {
    int32_t* listed;
    int32_t* code;  // of a pixel that nobody on the list wins
    float *least, *greatest;
    uint32_t* counts;  // 3 of each query, as in ProscalePanoptic
    uint16_t* list;    // 4 * query + kContends, kCrosses

    __host__ __device__ PanopticShared(void* memory, int kept) {
        listed = static_cast<int32_t*>(memory);
        code = listed + 1;
        least = reinterpret_cast<float*>(listed + 2);
        greatest = least + kept;
        counts = reinterpret_cast<uint32_t*>(greatest + kept);
        list = reinterpret_cast<uint16_t*>(counts + 3 * kept);
    }
    static constexpr size_t bytes(int kept) { return 8 + size_t{22} * kept; }
};
static_assert(PanopticShared::bytes(PROSCALE_MOST_QUERIES) <= 48 * 1024);

// Chooses whom to look at; called by the first warp.
__device__ __forceinline__ void listContenders(const ProscalePanoptic& task, const PanopticShared& tile) {
    const int lane = threadIdx.x % 32;
    const auto crosses = [&](int n) { return tile.least[n] < 0.f && tile.greatest[n] >= 0.f; };
    float sure = 0.f;
    for (int n = lane; n < task.kept; n += 32) sure = fmaxf(sure, task.score[n] * sigmoid(tile.least[n]));
    sure = reduceWarp(sure, [](float a, float b) { return fmaxf(a, b); });
    const auto contends = [&](int n) { return task.score[n] * sigmoid(tile.greatest[n]) >= winning(sure); };

    const int contenders = compact(task.kept, tile.list, contends);
    __syncwarp();
    const int leader = contenders > 0 ? tile.list[0] : 0;
    __syncwarp();
    // A query that wins the whole tile, and of one sign, needs no second look; one that changes its sign is counted.
    const int listed =
        compact(task.kept, tile.list, [&](int n) { return crosses(n) || (contenders > 1 && contends(n)); });
    __syncwarp();
    for (int i = lane; i < listed; i += 32) {
        const int n = tile.list[i];
        tile.list[i] = static_cast<uint16_t>(4 * n + (contends(n) ? kContends : 0) + (crosses(n) ? kCrosses : 0));
    }
    if (lane == 0) {
        *tile.listed = listed;
        *tile.code = 2 * leader + (tile.least[leader] >= 0.f);
    }
}

// Grid: tiles of the output, columns x rows. counts: cleared before.
template <typename T>
__global__ void __launch_bounds__(kMaskThreads, 4)
    panopticTiles(const __grid_constant__ ProscaleMasks masks, const __grid_constant__ ProscalePanoptic task) {
    extern __shared__ uint4 shared[];
    const PanopticShared block(shared, task.kept);
    const Tile tile(masks);
    const Scan scan(tile, threadIdx.x % kTeamLanes);
    forTeams(
        task.kept, [&](int n, int lane) { return boundsOf(maskOf<T>(masks, task.query[n]), tile, scan, lane); },
        [&](int n, const Bounds& bounds) {
            block.least[n] = bounds.least;
            block.greatest[n] = bounds.greatest;
            block.counts[3 * n] = block.counts[3 * n + 1] = 0;
            block.counts[3 * n + 2] = bounds.least >= 0.f ? tile.pixels() : 0;
        });
    __syncthreads();
    if (threadIdx.x < 32) listContenders(task, block);
    __syncthreads();

    const ThreadPixels<1> pixels(masks, tile);
    float best[kPixelsPerThread];
    int code[kPixelsPerThread];
#pragma unroll
    for (int p = 0; p < kPixelsPerThread; ++p) {
        best[p] = -1.f;
        code[p] = *block.code;
    }
    const int listed = *block.listed;
    for (int i = 0; i < listed; ++i) {
        const int entry = block.list[i], n = entry / 4;
        const bool contends = (entry & kContends) != 0, crosses = (entry & kCrosses) != 0;
        const T* mask = maskOf<T>(masks, task.query[n]);
        const float score = task.score[n];
        int held = 0;
#pragma unroll
        for (int p = 0; p < kPixelsPerThread; ++p) {
            const float logit = logitAt(mask, masks.width, pixels.row[p], pixels.column);
            if (crosses) held += __popc(__ballot_sync(kWholeWarp, pixels.valid[p] && logit >= 0.f));
            if (!contends) continue;
            const float value = score * sigmoid(logit);
            if (value > best[p]) {
                best[p] = value;
                code[p] = 2 * n + (logit >= 0.f);
            }
        }
        if (crosses && threadIdx.x % 32 == 0) atomicAdd(&block.counts[3 * n + 2], held);
    }
#pragma unroll
    for (int p = 0; p < kPixelsPerThread; ++p) {
        if (!pixels.valid[p]) continue;
        task.codes[pixels.index(masks, p)] = static_cast<int16_t>(code[p]);
        atomicAdd(&block.counts[code[p] / 2 * 3 + code[p] % 2], 1u);
    }
    __syncthreads();
    for (int i = threadIdx.x; i < 3 * task.kept; i += kMaskThreads) {
        if (block.counts[i] != 0) atomicAdd(&task.counts[i], block.counts[i]);
    }
}

}  // namespace proscale
