// The C functions that need no device: in both libraries.
#include "proscale/c_api.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "proscale/geometry.h"

namespace {

std::string problem(const ProscaleDeformAttn* op) {
    if (op == nullptr) return "no operator given";
    if (op->type < PROSCALE_FLOAT || op->type > PROSCALE_BFLOAT16) {
        return "type: expected 0 (float), 1 (half) or 2 (bfloat16), found " + std::to_string(op->type);
    }
    int64_t sizes[2 * proscale::kMaxLevels];
    std::copy(std::begin(op->sizes), std::end(op->sizes), sizes);
    proscale::Geometry geometry;
    return proscale::makeGeometry(op->heads, op->head_dim, op->points, sizes, op->levels, geometry);
}

}  // namespace

extern "C" int32_t proscale_deform_attn_problem(const ProscaleDeformAttn* op, char* text, int32_t capacity) {
    const std::string message = problem(op);
    if (text != nullptr && capacity > 0) {
        const auto count = std::min(message.size(), static_cast<size_t>(capacity) - 1);
        std::memcpy(text, message.data(), count);
        text[count] = '\0';
    }
    return static_cast<int32_t>(message.size());
}

extern "C" const char* proscale_version() { return PROSCALE_VERSION; }
