// Semantic maps on the CPU: mask_api.h, by rows of tiles.
#include <algorithm>

#include "masks_tile.h"

namespace proscale {
namespace {

constexpr int kQueriesAtOnce = 4;  // so that each sum is loaded and stored for four products

// One thread's work.
template <typename T, int kSamples>
class SemanticRows {
public:
    SemanticRows(const ProscaleMasks& masks, const ProscaleSemantic& task)
        : masks_(masks),
          task_(task),
          tiles_(tilesOf(masks.output_width, kTileWidth)),
          sure_(tiles_),
          sum_(tiles_),
          most_(size_t(task.classes) * tiles_),
          error_(masks.queries) {}

    void run(int row) {
        const Span y = tileSpan(row, kTileHeight, masks_.output_height);
        bounds_.find<T>(masks_, nullptr, masks_.queries, y);
        for (float& x : bounds_.least) x = sigmoid(x);
        for (float& x : bounds_.greatest) x = sigmoid(x);
        boundClasses();
        for (int tile = 0; tile < tiles_; ++tile) runTile(tile, y);
    }

private:
    // What each class reaches in each tile, at most; what the best reaches everywhere in it.
    void boundClasses() {
        std::fill(sure_.begin(), sure_.end(), 0.f);
        for (int k = 0; k < task_.classes; ++k) {
            addQueries(k, bounds_.least, sum_.data());
            for (int i = 0; i < tiles_; ++i) sure_[i] = larger(sure_[i], sum_[i]);
            addQueries(k, bounds_.greatest, most_.data() + size_t(k) * tiles_);
        }
    }

    // sum[tile] = sum over the queries of weight * probabilities[query][tile].
    void addQueries(int k, const std::vector<float>& probabilities, float* __restrict__ sum) const {
        std::fill_n(sum, tiles_, 0.f);
        for (int q = 0; q < masks_.queries; ++q) {
            const float weight = task_.weights[size_t(k) * masks_.queries + q];
            const float* probability = probabilities.data() + size_t(q) * tiles_;
            for (int i = 0; i < tiles_; ++i) sum[i] += weight * probability[i];
        }
    }

    void runTile(int tile, const Span& y) {
        const Span x = tileSpan(tile, kTileWidth, masks_.output_width);
        const TileColumns<kSamples> columns(masks_, x);
        float most = 0.f;
        for (int k = 0; k < task_.classes; ++k) most = larger(most, mostOf(k, tile));
        // First the classes that lead, roughly. A tile that is left in doubt is summed again, with all that may still
        // win.
        const float leading = larger(winning(sure_[tile]), kLeading * most);
        const bool isRough = sumClasses(tile, columns, y, leading, kTolerance) > strictTolerance(sure_[tile]);
        float worst = INFINITY;  // of the pixels' best sums
        bool isInDoubt = false;
        for (int row = 0; row < y.size(); ++row) {
            for (int i = row * kTileWidth; i < row * kTileWidth + x.size(); ++i) {
                worst = smaller(worst, best_[i]);
                isInDoubt |= isRough && second_[i] >= best_[i] - kClose;
            }
        }
        const float floor = larger(winning(sure_[tile]), worst - kClose);
        for (int k = 0; k < task_.classes; ++k) {
            isInDoubt |= mostOf(k, tile) >= floor && mostOf(k, tile) < leading;
        }
        if (isInDoubt) sumClasses(tile, columns, y, floor, strictTolerance(sure_[tile]));
        write(x, y);
    }

    float mostOf(int k, int tile) const { return most_[size_t(k) * tiles_ + tile]; }

    // Finds the best of the classes that may reach `floor`. Returns by how much a sum may be off.
    float sumClasses(int tile, const TileColumns<kSamples>& columns, const Span& y, float floor, float tolerance) {
        tried_.clear();
        for (int k = 0; k < task_.classes; ++k) {
            if (mostOf(k, tile) >= floor) tried_.push_back(k);
        }
        // By how much a sum may be off at most, if the middle of its bounds stands for a query.
        for (int q = 0; q < masks_.queries; ++q) {
            float weight = 0.f;
            for (const int k : tried_) weight = larger(weight, weightOf(k, q));
            error_[q] = weight * (high(q, tile) - low(q, tile)) * .5f;
        }
        const Steady steady = findSteady(tolerance);
        sums_.resize(tried_.size() * kTilePixels);
        varying_.clear();
        steady_.clear();
        for (int q = 0; q < masks_.queries; ++q) (error_[q] > steady.limit ? varying_ : steady_).push_back(q);
        for (size_t c = 0; c < tried_.size(); ++c) {
            float sum = 0.f;
            for (const int q : steady_) sum += weightOf(tried_[c], q) * (low(q, tile) + high(q, tile)) * .5f;
            std::fill_n(&sums_[c * kTilePixels], kTilePixels, sum);
        }
        for (size_t first = 0; first < varying_.size(); first += kQueriesAtOnce) addMasks(first, columns, y);
        findBest();
        return steady.error;
    }

    // Which queries need no look at every pixel: errors up to `limit` add up to `error` at most.
    struct Steady {
        float limit, error;
    };
    Steady findSteady(float tolerance) const {
        Steady steady{tolerance, 0.f};
        for (int i = 0; i < kHalvings; ++i, steady.limit *= .5f) {
            steady.error = 0.f;
            for (const float error : error_) steady.error += error <= steady.limit ? error : 0.f;
            if (steady.error <= tolerance) break;
        }
        return steady;
    }

    float low(int q, int tile) const { return bounds_.least[size_t(q) * tiles_ + tile]; }
    float high(int q, int tile) const { return bounds_.greatest[size_t(q) * tiles_ + tile]; }
    float weightOf(int k, int q) const { return task_.weights[size_t(k) * masks_.queries + q]; }

    void addMasks(size_t first, const TileColumns<kSamples>& columns, const Span& y) {
        const int count = static_cast<int>(std::min<size_t>(kQueriesAtOnce, varying_.size() - first));
        for (int j = 0; j < count; ++j) {
            drawProbabilities(masks_, maskOf<T>(masks_, varying_[first + j]), columns, y, probabilities_[j]);
        }
        for (size_t c = 0; c < tried_.size(); ++c) {
            float weight[kQueriesAtOnce] = {};
            for (int j = 0; j < count; ++j) weight[j] = weightOf(tried_[c], varying_[first + j]);
            float* __restrict__ sum = &sums_[c * kTilePixels];
            for (int i = 0; i < y.size() * kTileWidth; ++i) {
                sum[i] += weight[0] * probabilities_[0][i] + weight[1] * probabilities_[1][i] +
                          weight[2] * probabilities_[2][i] + weight[3] * probabilities_[3][i];
            }
        }
    }

    void findBest() {
        std::fill_n(best_, kTilePixels, -1.f);
        std::fill_n(second_, kTilePixels, -1.f);
        std::fill_n(labels_, kTilePixels, 0);
        for (size_t c = 0; c < tried_.size(); ++c) {
            const float* sum = &sums_[c * kTilePixels];
            const int32_t k = tried_[c];
            for (int i = 0; i < kTilePixels; ++i) {
                labels_[i] = sum[i] > best_[i] ? k : labels_[i];
                second_[i] = larger(second_[i], smaller(sum[i], best_[i]));
                best_[i] = larger(sum[i], best_[i]);
            }
        }
    }

    void write(const Span& x, const Span& y) {
        for (int row = 0; row < y.size(); ++row) {
            const int64_t to = int64_t{y.first + row} * masks_.output_width + x.first;
            std::copy_n(labels_ + row * kTileWidth, x.size(), task_.labels + to);
            std::copy_n(best_ + row * kTileWidth, x.size(), task_.scores + to);
        }
    }

    const ProscaleMasks& masks_;
    const ProscaleSemantic& task_;
    const int tiles_;
    RowBounds bounds_;                       // of logits, then of probabilities
    std::vector<float> sure_, sum_;          // of each tile
    std::vector<float> most_;                // (classes, tiles)
    std::vector<int32_t> tried_;             // classes that may win the tile
    std::vector<float> error_;               // of each query
    std::vector<int32_t> varying_, steady_;  // queries that need a look at every pixel, and the others
    float best_[kTilePixels], second_[kTilePixels];
    int32_t labels_[kTilePixels];
    std::vector<float> sums_;  // (tried, pixels)
    float probabilities_[kQueriesAtOnce][kTilePixels] = {};
};

template <typename T>
bool semantic(const ProscaleMasks& masks, const ProscaleSemantic& task) {
    const auto nothing = [](const auto&) {};
    return masks.samples == 1 ? forTileRows<SemanticRows<T, 1>>(masks, task, nothing)
                              : forTileRows<SemanticRows<T, 2>>(masks, task, nothing);
}

}  // namespace
}  // namespace proscale

using namespace proscale;

extern "C" int proscale_semantic_host(const ProscaleMasks* masks, const ProscaleSemantic* task) {
    if (!isValid(masks, task)) return 1;
    return (masks->type == PROSCALE_FLOAT ? semantic<float> : semantic<half>)(*masks, *task) ? 0 : 1;
}
