// What one node of the operator is: its attributes, checked, with the tables that the kernels read.
//
// The operator itself (inputs, layouts, formula) is defined in proscale_deploy/core/operator.py.
#pragma once

#include <cstdint>
#include <string>

#include "proscale/host_device.h"

namespace proscale {

constexpr int kMaxLevels = 8;
constexpr int kMaxPoints = 8;

struct Level {
    int32_t height, width;
    int32_t first;  // its first token
};

struct Scale {
    float x, y;
};

// Plain data: passed to kernels by value.
struct Geometry {
    int32_t heads;
    int32_t headDim;  // channels per head
    int32_t points;   // samples per head and level
    int32_t levels;
    int32_t tokens;  // of all levels
    Level level[kMaxLevels];
    // scale[l][k]: pixels of level k per pixel of level l. A table, because W_k / W_k must be exactly 1.
    Scale scale[kMaxLevels][kMaxLevels];

    // Elements of one token's row of `value` and of `output`, and of `sampling`.
    PROSCALE_HD int channels() const { return heads * headDim; }
    PROSCALE_HD int samples() const { return heads * levels * points; }
    PROSCALE_HD int samplingWidth() const { return 3 * samples(); }
};

// Fills `geometry`; `sizes` holds H0, W0, H1, W1, ... Returns an empty string, or what is wrong with the arguments.
inline std::string makeGeometry(int64_t heads, int64_t headDim, int64_t points, const int64_t* sizes, int64_t levels,
                                Geometry& geometry) {
    // Bounds that keep every product below inside int32.
    constexpr int64_t kMaxHeads = 1024, kMaxHeadDim = 1024, kMaxTokens = int64_t{1} << 26;
    const auto found = [](const char* what, int64_t value, int64_t least, int64_t most) {
        return std::string(what) + ": expected " + std::to_string(least) + " to " + std::to_string(most) + ", found " +
               std::to_string(value);
    };
    if (heads < 1 || heads > kMaxHeads) return found("heads", heads, 1, kMaxHeads);
    if (headDim < 1 || headDim > kMaxHeadDim) return found("channels per head", headDim, 1, kMaxHeadDim);
    if (points < 1 || points > kMaxPoints) return found("points", points, 1, kMaxPoints);
    if (levels < 1 || levels > kMaxLevels) return found("levels", levels, 1, kMaxLevels);

    geometry = {};
    geometry.heads = static_cast<int32_t>(heads);
    geometry.headDim = static_cast<int32_t>(headDim);
    geometry.points = static_cast<int32_t>(points);
    geometry.levels = static_cast<int32_t>(levels);
    int64_t tokens = 0;
    for (int64_t l = 0; l < levels; ++l) {
        const int64_t height = sizes[2 * l], width = sizes[2 * l + 1];
        if (height < 1 || height > kMaxTokens) return found("height of a level", height, 1, kMaxTokens);
        if (width < 1 || width > kMaxTokens) return found("width of a level", width, 1, kMaxTokens);
        geometry.level[l] = {static_cast<int32_t>(height), static_cast<int32_t>(width), static_cast<int32_t>(tokens)};
        tokens += height * width;
        if (tokens > kMaxTokens) return found("tokens of all levels", tokens, 1, kMaxTokens);
    }
    geometry.tokens = static_cast<int32_t>(tokens);
    for (int l = 0; l < geometry.levels; ++l) {
        for (int k = 0; k < geometry.levels; ++k) {
            geometry.scale[l][k] = {static_cast<float>(geometry.level[k].width) / geometry.level[l].width,
                                    static_cast<float>(geometry.level[k].height) / geometry.level[l].height};
        }
    }
    return {};
}

}  // namespace proscale
