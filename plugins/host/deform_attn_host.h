// The operator on the CPU, for those who bring threads of their own.
#pragma once

#include "proscale/c_api.h"
#include "proscale/geometry.h"

namespace proscale {

// Rows [first, last) of the batch's tokens; the arrays begin at row 0. Rows do not touch each other.
void deformAttnRows(const Geometry& geometry, int32_t type, int64_t first, int64_t last, const void* value,
                    const void* sampling, void* output);

// Neighbouring tokens read the same pixels: a thread takes so many at a time.
constexpr int64_t kRowsAtOnce = 64;

}  // namespace proscale
