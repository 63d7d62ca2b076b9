// The best class of each pixel.
#pragma once

#include "masks_tile.cuh"

namespace proscale {

constexpr int kQueriesAtOnce = 32;  // whose weights are in shared memory
constexpr int kClassesAtOnce = 16;  // whose sums are in registers

// Shared memory of a block.
struct SemanticShared {
    int32_t* sure;  // what the best class reaches everywhere; the bits of a float
    int32_t *tried, *varying;
    float* steadySum;       // of kClassesAtOnce
    float* weights;         // kQueriesAtOnce x classes at once
    float *low, *high;      // probabilities of each query in the tile; equal where the middle stands for all
    float* most;            // what each class may reach
    uint16_t* triedList;    // classes that may win
    uint16_t* varyingList;  // queries whose low and high differ

    __host__ __device__ SemanticShared(void* memory, int queries, int classes) {
        weights = static_cast<float*>(memory);
        steadySum = weights + kQueriesAtOnce * kClassesAtOnce;
        sure = reinterpret_cast<int32_t*>(steadySum + kClassesAtOnce);
        tried = sure + 1;
        varying = sure + 2;
        low = reinterpret_cast<float*>(sure + 4);
        high = low + queries;
        most = high + queries;
        triedList = reinterpret_cast<uint16_t*>(most + classes);
        varyingList = triedList + classes;
    }
    static constexpr size_t bytes(int queries, int classes) {
        return 4 * (kQueriesAtOnce * kClassesAtOnce + kClassesAtOnce + 4) + size_t{10} * queries + size_t{6} * classes;
    }
};
static_assert(SemanticShared::bytes(PROSCALE_MOST_QUERIES, PROSCALE_MOST_CLASSES) <= 48 * 1024);

// Which classes may win the tile, and which queries change so much within it that they need a look at every pixel.
template <typename T>
__device__ __forceinline__ void settle(const ProscaleMasks& masks, const ProscaleSemantic& task, const Tile& tile,
                                       const SemanticShared& block) {
    const auto plus = [](float a, float b) { return a + b; };
    const int queries = masks.queries;
    const Scan scan(tile, threadIdx.x % kTeamLanes);
    if (threadIdx.x == 0) *block.sure = 0;
    forTeams(
        queries, [&](int q, int lane) { return boundsOf(maskOf<T>(masks, q), tile, scan, lane); },
        [&](int q, const Bounds& bounds) {
            block.low[q] = sigmoid(bounds.least);
            block.high[q] = sigmoid(bounds.greatest);
        });
    __syncthreads();

    forTeams(
        task.classes,
        [&](int k, int lane) {
            Bounds sums{0.f, 0.f};
            for (int q = lane; q < queries; q += kTeamLanes) {
                const float weight = task.weights[k * queries + q];
                sums.least += weight * block.low[q];
                sums.greatest += weight * block.high[q];
            }
            return Bounds{reduceTeam(sums.least, plus), reduceTeam(sums.greatest, plus)};
        },
        [&](int k, const Bounds& sums) {
            block.most[k] = sums.greatest;
            atomicMax(block.sure, __float_as_int(sums.least));  // not negative: their bits are in the same order
        });
    __syncthreads();

    const float sure = __int_as_float(*block.sure);
    if (threadIdx.x < 32) {
        const int tried = compact(task.classes, block.triedList, [&](int k) { return mayWin(block.most[k], sure); });
        if (threadIdx.x == 0) *block.tried = tried;
    }
    __syncthreads();

    const int tried = *block.tried;
    const float limit = negligible(tried > 1, sure, queries);
    for (int q = threadIdx.x; q < queries; q += kMaskThreads) {
        float weight = 0.f;
        for (int i = 0; i < tried; ++i) weight = fmaxf(weight, task.weights[block.triedList[i] * queries + q]);
        const float middle = (block.low[q] + block.high[q]) * .5f;
        if (weight * (block.high[q] - middle) <= limit) block.low[q] = block.high[q] = middle;
    }
    __syncthreads();
    if (threadIdx.x < 32) {
        const int varying = compact(queries, block.varyingList, [&](int q) { return block.low[q] < block.high[q]; });
        if (threadIdx.x == 0) *block.varying = varying;
    }
    __syncthreads();
}

// Sums the classes `first` ... `first` + kClasses - 1 of those tried, as far as there are so many, and keeps the best.
template <typename T, int kSamples, int kClasses>
__device__ __forceinline__ void sumClasses(const ProscaleMasks& masks, const ProscaleSemantic& task,
                                           const SemanticShared& block, const ThreadPixels<kSamples>& pixels, int first,
                                           float (&best)[kPixelsPerThread], int (&label)[kPixelsPerThread]) {
    const int queries = masks.queries, varying = *block.varying;
    const int count = smaller(kClasses, *block.tried - first);
    forTeams(
        kClasses,
        [&](int c, int lane) {
            const float* weights = task.weights + block.triedList[first + smaller(c, count - 1)] * queries;
            float sum = 0.f;
            for (int q = lane; q < queries; q += kTeamLanes) {
                if (block.low[q] == block.high[q]) sum += weights[q] * block.low[q];
            }
            return reduceTeam(sum, [](float a, float b) { return a + b; });
        },
        [&](int c, float sum) { block.steadySum[c] = sum; });

    float sum[kPixelsPerThread][kClasses] = {};
    for (int base = 0; base < varying; base += kQueriesAtOnce) {
        for (int i = threadIdx.x; i < kQueriesAtOnce * kClasses; i += kMaskThreads) {
            const int j = i % kQueriesAtOnce, c = i / kQueriesAtOnce;
            const bool exists = base + j < varying && c < count;
            block.weights[j * kClasses + c] =
                exists ? task.weights[block.triedList[first + c] * queries + block.varyingList[base + j]] : 0.f;
        }
        __syncthreads();
        const int end = smaller(kQueriesAtOnce, varying - base);
        for (int j = 0; j < end; ++j) {
            const T* mask = maskOf<T>(masks, block.varyingList[base + j]);
#pragma unroll
            for (int p = 0; p < kPixelsPerThread; ++p) {
                const float probability = probabilityAt(mask, pixels.row[p], pixels.column);
#pragma unroll
                for (int c = 0; c < kClasses; ++c) sum[p][c] += block.weights[j * kClasses + c] * probability;
            }
        }
        __syncthreads();
    }
    if (varying == 0) __syncthreads();  // for steadySum
#pragma unroll
    for (int c = 0; c < kClasses; ++c) {
        if (c >= count) break;
        const int k = block.triedList[first + c];
        const float steady = block.steadySum[c];
#pragma unroll
        for (int p = 0; p < kPixelsPerThread; ++p) {
            const float total = steady + sum[p][c];
            if (total > best[p]) {
                best[p] = total;
                label[p] = k;
            }
        }
    }
    __syncthreads();  // before the next classes' sums
}

// Grid: tiles of the output, columns x rows.
template <typename T, int kSamples>
__global__ void __launch_bounds__(kMaskThreads)
    semanticTiles(const __grid_constant__ ProscaleMasks masks, const __grid_constant__ ProscaleSemantic task) {
    extern __shared__ uint4 shared[];
    const SemanticShared block(shared, masks.queries, task.classes);
    const Tile tile(masks);
    settle<T>(masks, task, tile, block);

    const ThreadPixels<kSamples> pixels(masks, tile);
    float best[kPixelsPerThread];
    int label[kPixelsPerThread];
#pragma unroll
    for (int p = 0; p < kPixelsPerThread; ++p) {
        best[p] = -1.f;
        label[p] = 0;
    }
    const int tried = *block.tried;
    if (tried == 1) {
        sumClasses<T, kSamples, 1>(masks, task, block, pixels, 0, best, label);
    } else if (tried <= 4) {
        sumClasses<T, kSamples, 4>(masks, task, block, pixels, 0, best, label);
    } else {
        for (int first = 0; first < tried; first += kClassesAtOnce) {
            sumClasses<T, kSamples, kClassesAtOnce>(masks, task, block, pixels, first, best, label);
        }
    }
#pragma unroll
    for (int p = 0; p < kPixelsPerThread; ++p) {
        if (!pixels.valid[p]) continue;
        task.labels[pixels.index[p]] = label[p];
        task.scores[pixels.index[p]] = best[p];
    }
}

}  // namespace proscale
