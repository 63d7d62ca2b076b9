// The best class of each pixel.
#pragma once

#include "masks_tile.cuh"

namespace proscale {

constexpr int kQueriesAtOnce = 32;  // whose weights are in shared memory
constexpr int kClassesAtOnce = 8;   // whose sums are in registers: each time, all probabilities are made anew

// What a block knows of its tile as a whole. Floats that are not negative are in the order of their bits.
struct SemanticTile {
    int32_t sure;       // bits of the sum that the best class reaches everywhere, from the queries' bounds
    int32_t most;       // bits of the greatest sum that any class may reach
    int32_t worst;      // bits of the least of the pixels' best sums
    int32_t isInDoubt;  // whether another class may be the best of some pixel
    int32_t tried;      // length of triedList
    int32_t varying;    // length of varyingList
    float limit;        // queries whose error is not above count as steady
    float steadyError;  // what these errors add up to, at most
};

// Shared memory of a block.
struct SemanticShared {
    float* weights;    // kQueriesAtOnce x classes at once
    float* steadySum;  // of kClassesAtOnce
    SemanticTile* tile;
    float *low, *high;      // bounds of each query's probability
    float* error;           // by how much a sum may be off if the middle of the bounds stands for the query
    float* most;            // what each class may reach
    uint16_t* triedList;    // classes to be summed
    uint16_t* varyingList;  // queries to be looked at pixel by pixel

    __device__ SemanticShared(void* memory, int queries, int classes) {
        weights = static_cast<float*>(memory);
        steadySum = weights + kQueriesAtOnce * kClassesAtOnce;
        tile = reinterpret_cast<SemanticTile*>(steadySum + kClassesAtOnce);
        low = reinterpret_cast<float*>(tile + 1);
        high = low + queries;
        error = high + queries;
        most = error + queries;
        triedList = reinterpret_cast<uint16_t*>(most + classes);
        varyingList = triedList + classes;
    }
    static constexpr size_t bytes(int queries, int classes) {
        return sizeof(float) * (kQueriesAtOnce + 1) * kClassesAtOnce + sizeof(SemanticTile) + size_t{14} * queries +
               size_t{6} * classes;
    }
};
static_assert(SemanticShared::bytes(PROSCALE_MOST_QUERIES, PROSCALE_MOST_CLASSES) <= 48 * 1024);

__device__ __forceinline__ void atomicMaxOf(int32_t* bits, float x) { atomicMax(bits, __float_as_int(x)); }
__device__ __forceinline__ float plus(float a, float b) { return a + b; }

// Bounds of the queries' probabilities, and of the classes' sums.
template <typename T>
__device__ __forceinline__ void boundClasses(const ProscaleMasks& masks, const ProscaleSemantic& task, const Tile& tile,
                                             const SemanticShared& block) {
    const int queries = masks.queries;
    const Scan scan(tile, threadIdx.x % kTeamLanes);
    if (threadIdx.x == 0) *block.tile = {0, 0, __float_as_int(INFINITY), 0, 0, 0, 0.f, 0.f};
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
            atomicMaxOf(&block.tile->sure, sums.least);
            atomicMaxOf(&block.tile->most, sums.greatest);
        });
    __syncthreads();
}

// Which classes are to be summed, those that may reach `floor`, and over which queries.
__device__ __forceinline__ void choose(const ProscaleMasks& masks, const ProscaleSemantic& task,
                                       const SemanticShared& block, float floor, float tolerance) {
    const int queries = masks.queries;
    if (threadIdx.x < 32) {
        const int tried = compact(task.classes, block.triedList, [&](int k) { return block.most[k] >= floor; });
        if (threadIdx.x == 0) block.tile->tried = tried;
    }
    __syncthreads();
    const int tried = block.tile->tried;
    for (int q = threadIdx.x; q < queries; q += kMaskThreads) {
        float weight = 0.f;
        for (int i = 0; i < tried; ++i) weight = fmaxf(weight, task.weights[block.triedList[i] * queries + q]);
        block.error[q] = weight * (block.high[q] - block.low[q]) * .5f;
    }
    __syncthreads();
    if (threadIdx.x < 32) {
        float limit = tolerance, sum = 0.f;
        for (int i = 0; i < kHalvings; ++i, limit *= .5f) {
            sum = 0.f;
            for (int q = threadIdx.x; q < queries; q += 32) sum += block.error[q] <= limit ? block.error[q] : 0.f;
            sum = reduceWarp(sum, plus);
            if (sum <= tolerance) break;
        }
        const int varying = compact(queries, block.varyingList, [&](int q) { return block.error[q] > limit; });
        if (threadIdx.x == 0) {
            block.tile->varying = varying;
            block.tile->limit = limit;
            block.tile->steadyError = sum;
        }
    }
    __syncthreads();
}

// The best two sums of each of a thread's pixels.
struct Best {
    float first[kPixelsPerThread], second[kPixelsPerThread];
    int label[kPixelsPerThread];

    __device__ void clear() {
#pragma unroll
        for (int p = 0; p < kPixelsPerThread; ++p) {
            first[p] = second[p] = -1.f;
            label[p] = 0;
        }
    }
    // Classes come in their order.
    __device__ void add(int p, float sum, int k) {
        second[p] = fmaxf(second[p], fminf(sum, first[p]));
        if (sum > first[p]) {
            first[p] = sum;
            label[p] = k;
        }
    }
};

// Sums kClasses of the classes to be tried, from the one numbered `start`, as far as there are so many.
template <typename T, int kSamples, int kClasses>
__device__ __forceinline__ void sumClasses(const ProscaleMasks& masks, const ProscaleSemantic& task,
                                           const SemanticShared& block, const ThreadPixels<kSamples>& pixels, int start,
                                           Best& best) {
    const int queries = masks.queries, varying = block.tile->varying;
    const int count = smaller(kClasses, block.tile->tried - start);
    const float limit = block.tile->limit;
    forTeams(
        kClasses,
        [&](int c, int lane) {
            const float* weights = task.weights + block.triedList[start + smaller(c, count - 1)] * queries;
            float sum = 0.f;
#pragma unroll 1
            for (int q = lane; q < queries; q += kTeamLanes) {
                if (!(block.error[q] > limit)) sum += weights[q] * (block.low[q] + block.high[q]) * .5f;
            }
            return reduceTeam(sum, plus);
        },
        [&](int c, float sum) { block.steadySum[c] = sum; });

    float sum[kPixelsPerThread][kClasses] = {};
    for (int base = 0; base < varying; base += kQueriesAtOnce) {
        for (int i = threadIdx.x; i < kQueriesAtOnce * kClasses; i += kMaskThreads) {
            const int j = i % kQueriesAtOnce, c = i / kQueriesAtOnce;
            const bool exists = base + j < varying && c < count;
            block.weights[j * kClasses + c] =
                exists ? task.weights[block.triedList[start + c] * queries + block.varyingList[base + j]] : 0.f;
        }
        __syncthreads();
        const int end = smaller(kQueriesAtOnce, varying - base);
#pragma unroll 1
        for (int j = 0; j < end; ++j) {
            const T* mask = maskOf<T>(masks, block.varyingList[base + j]);
#pragma unroll
            for (int p = 0; p < kPixelsPerThread; ++p) {
                const float probability = probabilityAt(mask, masks.width, pixels.row[p], pixels.column);
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
#pragma unroll
        for (int p = 0; p < kPixelsPerThread; ++p) {
            best.add(p, block.steadySum[c] + sum[p][c], block.triedList[start + c]);
        }
    }
    __syncthreads();  // before steadySum and the lists change
}

template <typename T, int kSamples>
__device__ __forceinline__ void sumTried(const ProscaleMasks& masks, const ProscaleSemantic& task,
                                         const SemanticShared& block, const ThreadPixels<kSamples>& pixels,
                                         Best& best) {
    best.clear();
    const int tried = block.tile->tried;
    if (tried == 1) {
        sumClasses<T, kSamples, 1>(masks, task, block, pixels, 0, best);
        return;
    }
    for (int start = 0; start < tried; start += kClassesAtOnce) {
        sumClasses<T, kSamples, kClassesAtOnce>(masks, task, block, pixels, start, best);
    }
}

// What a class must reach by its bounds to be the best of some pixel, once the pixels' best sums are known roughly.
__device__ __forceinline__ float stillWinning(const SemanticTile& tile) {
    return fmaxf(winning(__int_as_float(tile.sure)), __int_as_float(tile.worst) - kClose);
}

// After rough sums of the classes that may reach `tried`: whether they may have missed the best of some pixel.
template <int kSamples>
__device__ __forceinline__ bool isInDoubt(const ProscaleSemantic& task, const SemanticShared& block,
                                          const ThreadPixels<kSamples>& pixels, const Best& best, float tried) {
    const bool isRough = block.tile->steadyError > strictTolerance(__int_as_float(block.tile->sure));
    float worst = INFINITY;
    bool isClose = false;
#pragma unroll
    for (int p = 0; p < kPixelsPerThread; ++p) {
        if (!pixels.valid[p]) continue;
        worst = fminf(worst, best.first[p]);
        isClose |= isRough && best.second[p] >= best.first[p] - kClose;
    }
    worst = reduceWarp(worst, [](float a, float b) { return fminf(a, b); });
    const bool anyClose = __ballot_sync(kWholeWarp, isClose) != 0;
    if (threadIdx.x % 32 == 0) {
        atomicMin(&block.tile->worst, __float_as_int(worst));
        if (anyClose) atomicMax(&block.tile->isInDoubt, 1);
    }
    __syncthreads();
    const float floor = stillWinning(*block.tile);
    for (int k = threadIdx.x; k < task.classes; k += kMaskThreads) {
        if (block.most[k] >= floor && block.most[k] < tried) atomicMax(&block.tile->isInDoubt, 1);
    }
    __syncthreads();
    return block.tile->isInDoubt != 0;
}

// Grid: tiles of the output, columns x rows.
template <typename T, int kSamples>
__global__ void __launch_bounds__(kMaskThreads, kSamples == 1 ? 3 : 2)
    semanticTiles(const __grid_constant__ ProscaleMasks masks, const __grid_constant__ ProscaleSemantic task) {
    extern __shared__ uint4 shared[];
    const SemanticShared block(shared, masks.queries, task.classes);
    const Tile tile(masks);
    boundClasses<T>(masks, task, tile, block);

    // First the classes that lead, roughly. A tile that is left in doubt is summed again, with all that may still win.
    const float sure = __int_as_float(block.tile->sure);
    float floor = fmaxf(winning(sure), kLeading * __int_as_float(block.tile->most));
    const ThreadPixels<kSamples> pixels(masks, tile);
    Best best;
    float tolerance = kTolerance;
#pragma unroll 1
    for (int round = 0; round < 2; ++round) {
        choose(masks, task, block, floor, tolerance);
        sumTried<T>(masks, task, block, pixels, best);
        if (round == 1 || !isInDoubt(task, block, pixels, best, floor)) break;
        floor = stillWinning(*block.tile);
        tolerance = strictTolerance(sure);
    }
#pragma unroll
    for (int p = 0; p < kPixelsPerThread; ++p) {
        if (!pixels.valid[p]) continue;
        task.labels[pixels.index(masks, p)] = best.label[p];
        task.scores[pixels.index(masks, p)] = best.first[p];
    }
}

}  // namespace proscale
