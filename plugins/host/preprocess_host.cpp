// The preprocessing on the CPU. A thread takes bands of output rows. It resizes the columns of the frame's rows one by
// one, keeps as many as an output row needs, and adds those up.
#include <algorithm>
#include <atomic>
#include <cstddef>
#include <new>
#include <vector>

#include "proscale/resize.h"
#include "proscale/scalar.h"

namespace proscale {
namespace {

constexpr int kBandRows = 32;  // of the output; between two bands some rows of the frame are resized twice
constexpr int kBlock = 64;     // bytes that are added up at a time

// One row of the frame, its columns resized: three planes of resized_width bytes, side by side. kTaps: weights per
// column, 0 for any number.
template <int kTaps>
void resizeColumns(const ProscalePreprocess& task, int row, uint8_t* planes) {
    const uint8_t* const source = task.frame + row * task.pitch;
    const ProscaleTaps& taps = task.columns;
    const int width = task.resized_width, count = kTaps > 0 ? kTaps : taps.count;
    for (int x = 0; x < width; ++x) {
        const uint8_t* const pixels = source + int64_t{3} * taps.first[x];
        const int32_t* const weights = taps.weights + int64_t{x} * taps.stride;
        if (kTaps == 1) {  // of weight 1
            for (int c = 0; c < 3; ++c) planes[c * width + x] = pixels[c];
            continue;
        }
        uint32_t sums[3] = {kRounding, kRounding, kRounding};
        for (int k = 0; k < count; ++k) {
            for (int c = 0; c < 3; ++c) sums[c] += static_cast<uint32_t>(weights[k]) * pixels[3 * k + c];
        }
        for (int c = 0; c < 3; ++c) planes[c * width + x] = static_cast<uint8_t>(toByte(sums[c]));
    }
}

// Makes output rows one after the other, from the top to the bottom.
class Rows {
public:
    explicit Rows(const ProscalePreprocess& task)
        : task_(task),
          stride_((size_t{3} * static_cast<size_t>(task.resized_width) + kBlock - 1) / kBlock * kBlock),
          ring_(stride_ * static_cast<size_t>(task.rows.count)),
          resized_(stride_) {}

    // Row y of the resized frame: three planes, side by side.
    const uint8_t* operator()(int y) {
        const ProscaleTaps& taps = task_.rows;
        const int first = taps.first[y];
        for (next_ = std::max(next_, first); next_ < first + taps.count; ++next_) {
            const auto resize = task_.columns.count == 1   ? resizeColumns<1>
                                : task_.columns.count == 2 ? resizeColumns<2>
                                : task_.columns.count == 3 ? resizeColumns<3>
                                : task_.columns.count == 4 ? resizeColumns<4>
                                                           : resizeColumns<0>;
            resize(task_, next_, row(next_));
        }
        if (taps.count == 1) return row(first);
        const int32_t* const weights = taps.weights + int64_t{y} * taps.stride;
        for (size_t begin = 0; begin < stride_; begin += kBlock) {
            uint32_t sums[kBlock];
            std::fill_n(sums, kBlock, kRounding);
            for (int k = 0; k < taps.count; ++k) {
                const auto weight = static_cast<uint32_t>(weights[k]);
                const uint8_t* const bytes = row(first + k) + begin;
                for (int i = 0; i < kBlock; ++i) sums[i] += weight * bytes[i];
            }
            for (int i = 0; i < kBlock; ++i) resized_[begin + i] = static_cast<uint8_t>(toByte(sums[i]));
        }
        return resized_.data();
    }

private:
    uint8_t* row(int number) { return ring_.data() + stride_ * static_cast<size_t>(number % task_.rows.count); }

    const ProscalePreprocess& task_;
    const size_t stride_;
    std::vector<uint8_t> ring_;  // the last rows of the frame, their columns resized
    std::vector<uint8_t> resized_;
    int next_ = 0;  // row of the frame
};

template <typename T>
bool preprocess(const ProscalePreprocess& task) {
    T table[3][256];  // of each channel of the frame
    for (int c = 0; c < 3; ++c) {
        const int plane = planeOf(task, c);
        for (uint32_t byte = 0; byte < 256; ++byte) {
            table[c][byte] = fromFloat<T>(normalise(byte, task.mean[plane], task.std[plane]));
        }
    }
    const T zero = fromFloat<T>(0.f);
    std::atomic<bool> enough{true};  // memory
#pragma omp parallel for schedule(dynamic)
    for (int top = 0; top < task.output_height; top += kBandRows) {
        try {
            Rows rows(task);
            for (int y = top; y < std::min(top + kBandRows, task.output_height); ++y) {
                const int width = y < task.resized_height ? task.resized_width : 0;
                const uint8_t* const planes = width > 0 ? rows(y) : nullptr;
                for (int c = 0; c < 3; ++c) {
                    T* const output = static_cast<T*>(task.output) +
                                      (int64_t{planeOf(task, c)} * task.output_height + y) * task.output_width;
                    for (int x = 0; x < width; ++x) output[x] = table[c][planes[int64_t{c} * width + x]];
                    std::fill(output + width, output + task.output_width, zero);
                }
            }
        } catch (const std::bad_alloc&) {
            enough = false;
        }
    }
    return enough;
}

}  // namespace
}  // namespace proscale

extern "C" int proscale_preprocess_host(const ProscalePreprocess* task) {
    using namespace proscale;
    if (!isValid(task)) return 1;
    return (task->type == PROSCALE_FLOAT ? preprocess<float> : preprocess<half>)(*task) ? 0 : 1;
}
