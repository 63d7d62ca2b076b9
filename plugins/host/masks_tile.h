// What the host's loops share: rows of tiles for the threads, bounds of all masks in such a row, and one mask in one
// tile, in loops that compilers turn into vector code.
#pragma once

#include <atomic>
#include <memory>
#include <new>
#include <vector>

#include "proscale/masks.h"

namespace proscale {

constexpr int kTilePixels = kTileWidth * kTileHeight;

// Columns of a tile. Those beyond the output repeat its last, so that loops are always as long as a tile is wide.
template <int kSamples>
struct TileColumns {
    int32_t offset[kTileWidth];
    float weight[kSamples][kTaps][kTileWidth];
    float share[kTileWidth];

    TileColumns(const ProscaleMasks& masks, const Span& x) {
        for (int i = 0; i < kTileWidth; ++i) {
            const ProscaleMaskTap& tap = masks.columns[smaller(x.first + i, x.last - 1)];
            offset[i] = tap.first;
            for (int s = 0; s < kSamples; ++s) {
                for (int d = 0; d < kTaps; ++d) weight[s][d][i] = tap.weight[s][d];
            }
            share[i] = tap.share;
        }
    }
};

template <typename T>
const T* maskOf(const ProscaleMasks& masks, int query) {
    return static_cast<const T*>(masks.logits) + int64_t{query} * masks.height * masks.width;
}

// Calls draw(y, lines) for every row of a tile, y counted in it: lines[d][s] is the mask's row first + d, resized
// along the columns for sample s. Neighbouring rows share most of their lines.
template <typename T, int kSamples, typename Draw>
void forRows(const ProscaleMasks& masks, const T* mask, const TileColumns<kSamples>& columns, const Span& rows,
             Draw draw) {
    float ring[kTaps][kSamples][kTileWidth];
    int done = masks.rows[rows.first].first;  // the first line that is not in the ring
    for (int y = rows.first; y < rows.last; ++y) {
        const int first = masks.rows[y].first;
        for (done = done < first ? first : done; done < first + kTaps; ++done) {
            const T* pixels = mask + int64_t{done} * masks.width;
            float tap[kTaps][kTileWidth];
            for (int d = 0; d < kTaps; ++d) {
                for (int i = 0; i < kTileWidth; ++i) tap[d][i] = toFloat(pixels[columns.offset[i] + d]);
            }
            for (int s = 0; s < kSamples; ++s) {
                const auto& weight = columns.weight[s];
                float* line = ring[done % kTaps][s];
                for (int i = 0; i < kTileWidth; ++i) {
                    line[i] = weight[0][i] * tap[0][i] + weight[1][i] * tap[1][i] + weight[2][i] * tap[2][i];
                }
            }
        }
        const float (*const lines[kTaps])[kTileWidth] = {ring[first % kTaps], ring[(first + 1) % kTaps],
                                                         ring[(first + 2) % kTaps]};
        draw(y - rows.first, lines);
    }
}

// One sample of a row of logits.
template <int kSamples>
inline void addLines(const float (*const (&lines)[kTaps])[kTileWidth], int sample, const float* weight,
                     float* __restrict__ logits) {
    const float *a = lines[0][sample], *b = lines[1][sample], *c = lines[2][sample];
    for (int i = 0; i < kTileWidth; ++i) logits[i] = weight[0] * a[i] + weight[1] * b[i] + weight[2] * c[i];
}

// Logits (kTileHeight, kTileWidth) of one mask in one tile; rows beyond the output are left as they are.
template <typename T>
void drawLogits(const ProscaleMasks& masks, const T* mask, const TileColumns<1>& columns, const Span& rows,
                float* logits) {
    forRows<T, 1>(masks, mask, columns, rows, [&](int y, const auto& lines) {
        addLines<1>(lines, 0, masks.rows[rows.first + y].weight[0], logits + y * kTileWidth);
    });
}

// Probabilities likewise.
template <typename T>
void drawProbabilities(const ProscaleMasks& masks, const T* mask, const TileColumns<1>& columns, const Span& rows,
                       float* probabilities) {
    drawLogits(masks, mask, columns, rows, probabilities);
    for (int i = 0; i < rows.size() * kTileWidth; ++i) probabilities[i] = sigmoid(probabilities[i]);
}

template <typename T>
void drawProbabilities(const ProscaleMasks& masks, const T* mask, const TileColumns<2>& columns, const Span& rows,
                       float* probabilities) {
    forRows<T, 2>(masks, mask, columns, rows, [&](int y, const auto& lines) {
        const ProscaleMaskTap& row = masks.rows[rows.first + y];
        float side[2][kTileWidth];
        for (int s = 0; s < 2; ++s) {
            float top[kTileWidth], bottom[kTileWidth];
            addLines<2>(lines, s, row.weight[0], top);
            addLines<2>(lines, s, row.weight[1], bottom);
            for (int i = 0; i < kTileWidth; ++i) side[s][i] = blend(sigmoid(top[i]), sigmoid(bottom[i]), row.share);
        }
        float* line = probabilities + y * kTileWidth;
        for (int i = 0; i < kTileWidth; ++i) line[i] = blend(side[0][i], side[1][i], columns.share[i]);
    });
}

// Deals the rows of tiles out to threads: each calls run(row) of a Work of its own, and when all rows are done, one
// thread after the other finish(work). False where memory is too small.
template <typename Work, typename Task, typename Finish>
bool forTileRows(const ProscaleMasks& masks, const Task& task, Finish finish) {
    const int rows = tilesOf(masks.output_height, kTileHeight);
    std::atomic<bool> enough{true};
    // No exception may leave what OpenMP runs.
    const auto guarded = [&enough](auto&& run) {
        try {
            run();
        } catch (const std::bad_alloc&) {
            enough = false;
        }
    };
#pragma omp parallel
    {
        std::unique_ptr<Work> work;
        guarded([&] { work = std::make_unique<Work>(masks, task); });
#pragma omp for schedule(dynamic)
        for (int row = 0; row < rows; ++row) {
            guarded([&] {
                if (work) work->run(row);
            });
        }
#pragma omp critical(proscale_masks)
        if (work) finish(*work);
    }
    return enough;
}

// Bounds of some masks in all tiles of one row, (masks, tiles).
struct RowBounds {
    std::vector<float> least, greatest;

    // query: which masks; null: the first `count`.
    template <typename T>
    void find(const ProscaleMasks& masks, const int32_t* query, int count, const Span& rows) {
        const int tiles = tilesOf(masks.output_width, kTileWidth);
        const Span window = windowOf(masks.rows, rows, masks.samples);
        least.resize(size_t(count) * tiles);
        greatest.resize(size_t(count) * tiles);
        low_.resize(masks.width);
        high_.resize(masks.width);
        for (int n = 0; n < count; ++n) {
            const T* pixels = maskOf<T>(masks, query ? query[n] : n) + int64_t{window.first} * masks.width;
            for (int x = 0; x < masks.width; ++x) low_[x] = high_[x] = toFloat(pixels[x]);
            for (int y = 1; y < window.size(); ++y) {
                pixels += masks.width;
                for (int x = 0; x < masks.width; ++x) {
                    const float logit = toFloat(pixels[x]);
                    low_[x] = smaller(low_[x], logit);
                    high_[x] = larger(high_[x], logit);
                }
            }
            for (int i = 0; i < tiles; ++i) {
                const Span x = windowOf(masks.columns, tileSpan(i, kTileWidth, masks.output_width), masks.samples);
                Bounds bounds{low_[x.first], high_[x.first]};
                for (int column = x.first + 1; column < x.last; ++column) {
                    bounds = {smaller(bounds.least, low_[column]), larger(bounds.greatest, high_[column])};
                }
                bounds = widened(bounds);
                least[size_t(n) * tiles + i] = bounds.least;
                greatest[size_t(n) * tiles + i] = bounds.greatest;
            }
        }
    }

private:
    std::vector<float> low_, high_;  // of the window's columns
};

}  // namespace proscale
