// From the argument of a C function to the tables of the kernels.
#pragma once

#include <algorithm>
#include <iterator>
#include <string>

#include "proscale/c_api.h"
#include "proscale/geometry.h"

namespace proscale {

// Fills `geometry`; returns an empty string, or what is wrong with `op`.
inline std::string makeGeometry(const ProscaleDeformAttn* op, Geometry& geometry) {
    if (op == nullptr) return "no operator given";
    if (op->type < PROSCALE_FLOAT || op->type > PROSCALE_BFLOAT16) {
        return "type: expected 0 (float), 1 (half) or 2 (bfloat16), found " + std::to_string(op->type);
    }
    int64_t sizes[2 * kMaxLevels];
    std::copy(std::begin(op->sizes), std::end(op->sizes), sizes);
    return makeGeometry(op->heads, op->head_dim, op->points, sizes, op->levels, geometry);
}

}  // namespace proscale
