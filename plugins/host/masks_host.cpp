// Post-processing per pixel on the CPU: mask_api.h, by rows of tiles.
#include <algorithm>
#include <cstring>

#include "masks_tile.h"

namespace proscale {
namespace {

// --- panoptic --------------------------------------------------------------------------------------------------------

// One thread's work.
template <typename T>
class PanopticRows {
public:
    PanopticRows(const ProscaleMasks& masks, const ProscalePanoptic& task)
        : masks_(masks), task_(task), tiles_(tilesOf(masks.output_width, kTileWidth)), counts_(size_t{3} * task.kept) {}

    void run(int row) {
        const Span y = tileSpan(row, kTileHeight, masks_.output_height);
        bounds_.find<T>(masks_, task_.query, task_.kept, y);
        for (int tile = 0; tile < tiles_; ++tile) runTile(tile, y);
    }

    void addCounts(uint32_t* counts) const {
        for (size_t i = 0; i < counts_.size(); ++i) counts[i] += counts_[i];
    }

private:
    void runTile(int tile, const Span& y) {
        const Span x = tileSpan(tile, kTileWidth, masks_.output_width);
        const auto least = [&](int n) { return bounds_.least[size_t(n) * tiles_ + tile]; };
        const auto greatest = [&](int n) { return bounds_.greatest[size_t(n) * tiles_ + tile]; };
        float sure = 0.f;
        for (int n = 0; n < task_.kept; ++n) sure = larger(sure, task_.score[n] * sigmoid(least(n)));
        const auto contends = [&](int n) { return task_.score[n] * sigmoid(greatest(n)) >= winning(sure); };
        int contenders = 0, leader = 0;
        for (int n = task_.kept - 1; n >= 0; --n) {
            if (!contends(n)) continue;
            leader = n;
            ++contenders;
        }

        std::fill_n(best_, kTilePixels, -1.f);
        std::fill_n(codes_, kTilePixels, 2 * leader + (least(leader) >= 0.f));
        const TileColumns<1> columns(masks_, x);
        for (int n = 0; n < task_.kept; ++n) {
            const bool crosses = least(n) < 0.f && greatest(n) >= 0.f;
            if (least(n) >= 0.f) counts_[3 * n + 2] += x.size() * y.size();
            if (!crosses && !(contenders > 1 && contends(n))) continue;
            drawLogits(masks_, maskOf<T>(masks_, task_.query[n]), columns, y, logits_);
            if (crosses) counts_[3 * n + 2] += countHeld(x, y);
            if (contends(n)) compete(n, y);
        }
        write(x, y);
    }

    uint32_t countHeld(const Span& x, const Span& y) const {
        uint32_t held = 0;
        for (int row = 0; row < y.size(); ++row) {
            for (int i = 0; i < x.size(); ++i) held += logits_[row * kTileWidth + i] >= 0.f;
        }
        return held;
    }

    void compete(int n, const Span& y) {
        const float score = task_.score[n];
        for (int i = 0; i < y.size() * kTileWidth; ++i) {
            const float value = score * sigmoid(logits_[i]);
            const bool wins = value > best_[i];
            const int32_t code = 2 * n + (logits_[i] >= 0.f);
            codes_[i] = wins ? code : codes_[i];
            best_[i] = wins ? value : best_[i];
        }
    }

    void write(const Span& x, const Span& y) {
        for (int row = 0; row < y.size(); ++row) {
            const int32_t* codes = codes_ + row * kTileWidth;
            int16_t* to = task_.codes + int64_t{y.first + row} * masks_.output_width + x.first;
            int start = 0;  // of a run of equal codes
            for (int i = 0; i < x.size(); ++i) {
                to[i] = static_cast<int16_t>(codes[i]);
                if (i + 1 < x.size() && codes[i + 1] == codes[i]) continue;
                counts_[codes[i] / 2 * 3 + codes[i] % 2] += i + 1 - start;
                start = i + 1;
            }
        }
    }

    const ProscaleMasks& masks_;
    const ProscalePanoptic& task_;
    const int tiles_;
    RowBounds bounds_;
    std::vector<uint32_t> counts_;
    float logits_[kTilePixels], best_[kTilePixels];
    int32_t codes_[kTilePixels];
};

template <typename T>
bool panoptic(const ProscaleMasks& masks, const ProscalePanoptic& task) {
    std::fill_n(task.counts, size_t{3} * task.kept, 0);
    return forTileRows<PanopticRows<T>>(masks, task, [&](const auto& work) { work.addCounts(task.counts); });
}

// --- instances -------------------------------------------------------------------------------------------------------

// Eight bytes of 0 or 1 as bits, the first the lowest.
uint32_t packBytes(const uint8_t* bytes) {
    uint64_t eight = 0;
    for (int i = 0; i < 8; ++i) eight |= uint64_t{bytes[i]} << 8 * i;
    return static_cast<uint32_t>(eight * 0x0102040810204080u >> 56);
}

// The positive pixels of one row of a tile.
struct Positive {
    uint32_t word;
    uint32_t probability;  // 32 of at most 2^24
};

Positive findPositive(const float* logits, int width) {
    uint8_t bytes[kTileWidth];
    int32_t fixed[kTileWidth];
    for (int i = 0; i < kTileWidth; ++i) bytes[i] = logits[i] > 0.f && i < width;
    for (int i = 0; i < kTileWidth; ++i) {
        const auto value = static_cast<int32_t>(fixedPoint(sigmoid(logits[i])));
        fixed[i] = logits[i] > 0.f && i < width ? value : 0;
    }
    Positive found{0, 0};
    for (int i = 0; i < kTileWidth; i += 8) found.word |= packBytes(bytes + i) << i;
    for (int i = 0; i < kTileWidth; ++i) found.probability += static_cast<uint32_t>(fixed[i]);
    return found;
}

// Of words whose lowest bit is at `x`, in row `y`.
void include(const ProscaleMasks& masks, const Positive& found, int x, int y, ProscaleMaskStats& stats) {
    if (found.word == 0) return;
    stats.probability += found.probability;
    stats.count += static_cast<uint32_t>(__builtin_popcount(found.word));
    stats.right = std::max(stats.right, static_cast<uint32_t>(x + 32 - __builtin_clz(found.word)));
    stats.bottom = std::max(stats.bottom, static_cast<uint32_t>(y + 1));
    stats.from_right =
        std::max(stats.from_right, static_cast<uint32_t>(masks.output_width - x - __builtin_ctz(found.word)));
    stats.from_bottom = std::max(stats.from_bottom, static_cast<uint32_t>(masks.output_height - y));
}

void merge(const ProscaleMaskStats& from, ProscaleMaskStats& to) {
    to.probability += from.probability;
    to.count += from.count;
    to.right = std::max(to.right, from.right);
    to.bottom = std::max(to.bottom, from.bottom);
    to.from_right = std::max(to.from_right, from.from_right);
    to.from_bottom = std::max(to.from_bottom, from.from_bottom);
}

// One thread's work.
template <typename T>
class InstanceRows {
public:
    InstanceRows(const ProscaleMasks& masks, const ProscaleInstances& task)
        : masks_(masks), task_(task), tiles_(tilesOf(masks.output_width, kTileWidth)), stats_(task.wanted) {}

    void run(int row) {
        const Span y = tileSpan(row, kTileHeight, masks_.output_height);
        bounds_.find<T>(masks_, task_.query, task_.wanted, y);
        for (int tile = 0; tile < tiles_; ++tile) {
            const Span x = tileSpan(tile, kTileWidth, masks_.output_width);
            const TileColumns<1> columns(masks_, x);
            for (int m = 0; m < task_.wanted; ++m) drawMask(m, tile, columns, x, y);
        }
    }

    void addStats(ProscaleMaskStats* stats) const {
        for (int m = 0; m < task_.wanted; ++m) merge(stats_[m], stats[m]);
    }

private:
    void drawMask(int m, int tile, const TileColumns<1>& columns, const Span& x, const Span& y) {
        uint32_t* words = task_.bits + (int64_t{m} * masks_.output_height + y.first) * tiles_ + tile;
        if (!(bounds_.greatest[size_t(m) * tiles_ + tile] > 0.f)) {
            for (int i = 0; i < y.size(); ++i) words[int64_t{i} * tiles_] = 0;
            return;
        }
        drawLogits(masks_, maskOf<T>(masks_, task_.query[m]), columns, y, logits_);
        for (int i = 0; i < y.size(); ++i) {
            const Positive found = findPositive(logits_ + i * kTileWidth, x.size());
            words[int64_t{i} * tiles_] = found.word;
            include(masks_, found, x.first, y.first + i, stats_[m]);
        }
    }

    const ProscaleMasks& masks_;
    const ProscaleInstances& task_;
    const int tiles_;
    RowBounds bounds_;
    std::vector<ProscaleMaskStats> stats_;
    float logits_[kTilePixels];
};

template <typename T>
bool instances(const ProscaleMasks& masks, const ProscaleInstances& task) {
    std::fill_n(task.stats, task.wanted, ProscaleMaskStats{});
    return forTileRows<InstanceRows<T>>(masks, task, [&](const auto& work) { work.addStats(task.stats); });
}

// --- small ones ------------------------------------------------------------------------------------------------------

template <typename Bits>
uint32_t countNonfinite(const Bits* values, int64_t count, Bits exponent) {
    int64_t found = 0;
#pragma omp parallel for reduction(+ : found)
    for (int64_t i = 0; i < count; ++i) found += (values[i] & exponent) == exponent;
    return static_cast<uint32_t>(found);
}

}  // namespace
}  // namespace proscale

using namespace proscale;

extern "C" int proscale_panoptic_host(const ProscaleMasks* masks, const ProscalePanoptic* task) {
    if (!isValid(masks, task)) return 1;
    return (masks->type == PROSCALE_FLOAT ? panoptic<float> : panoptic<half>)(*masks, *task) ? 0 : 1;
}

extern "C" int proscale_instances_host(const ProscaleMasks* masks, const ProscaleInstances* task) {
    if (!isValid(masks, task)) return 1;
    return (masks->type == PROSCALE_FLOAT ? instances<float> : instances<half>)(*masks, *task) ? 0 : 1;
}

extern "C" int proscale_relabel_host(const int16_t* codes, int64_t count, const int32_t* ids, int32_t entries,
                                     int32_t* map) {
    if (codes == nullptr || ids == nullptr || map == nullptr || count < 1 || entries < 1) return 1;
#pragma omp parallel for
    for (int64_t i = 0; i < count; ++i) map[i] = ids[codes[i]];
    return 0;
}

extern "C" int proscale_count_nonfinite_host(int32_t type, const void* values, int64_t count, uint32_t* found) {
    const bool known = type == PROSCALE_FLOAT || type == PROSCALE_HALF;
    if (!known || values == nullptr || found == nullptr || count < 1) return 1;
    *found = type == PROSCALE_FLOAT ? countNonfinite(static_cast<const uint32_t*>(values), count, uint32_t{0x7f800000u})
                                    : countNonfinite(static_cast<const uint16_t*>(values), count, uint16_t{0x7c00u});
    return 0;
}
