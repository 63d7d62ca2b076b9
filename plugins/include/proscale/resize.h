// From a frame's bytes to the network's input: Pillow's 8-bit fixed-point resize, then the normalisation. Once for host
// and device.
#pragma once

#include <cstdint>

#include "proscale/frame_api.h"
#include "proscale/host_device.h"

namespace proscale {

constexpr int kWeightBits = 22;
// Where every sum of weights and bytes begins: it is cut in the end, and so rounded.
constexpr uint32_t kRounding = 1u << (kWeightBits - 1);
// Weights are rounded one by one: a sum of so many may exceed 1 by 2^13 units, which lifts white by less than half a
// grey level. So no sum needs to be clipped.
constexpr int32_t kMaxTaps = 1 << 14;

PROSCALE_HD uint32_t toByte(uint32_t sum) { return sum >> kWeightBits; }

PROSCALE_HD float normalise(uint32_t byte, float mean, float std) { return (static_cast<float>(byte) - mean) / std; }

// The plane of the output that channel 0, 1 or 2 of the frame becomes.
PROSCALE_HD int planeOf(const ProscalePreprocess& task, int channel) { return task.rgb ? 2 - channel : channel; }

inline bool isValid(const ProscaleTaps& taps, int32_t inputs) {
    return taps.first != nullptr && taps.weights != nullptr && taps.count >= 1 && taps.count <= inputs &&
           taps.count <= kMaxTaps && taps.stride >= taps.count;
}

// What can be told without reading the tables.
inline bool isValid(const ProscalePreprocess* task) {
    constexpr int32_t kMaxEdge = 16 * 65535;  // a grid has 65535 rows of tiles, each of 16 rows
    if (task == nullptr || task->frame == nullptr || task->output == nullptr) return false;
    return task->height >= 1 && task->height <= kMaxEdge && task->width >= 1 && task->width <= kMaxEdge &&
           task->pitch >= int64_t{3} * task->width &&  //
           task->resized_height >= 1 && task->resized_height <= task->output_height &&
           task->output_height <= kMaxEdge &&  //
           task->resized_width >= 1 && task->resized_width <= task->output_width && task->output_width <= kMaxEdge &&
           (task->type == PROSCALE_FLOAT || task->type == PROSCALE_HALF) && isValid(task->rows, task->height) &&
           isValid(task->columns, task->width) && task->columns.stride % 4 == 0;
}

}  // namespace proscale
