// CUDA's vector types, with its alignments.
#pragma once

#include "machine.h"

struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
