// The operator on the CPU: loops around the shared math.
#include "deform_attn_host.h"

#include <algorithm>

#include "arguments.h"
#include "proscale/deform_attn.h"

namespace proscale {
namespace {

// The channels of one head of one token from `channel` on, kChannels at a time as far as they go. Returns the first
// channel that is left.
template <int kChannels, typename T>
int attendInBlocks(const Geometry& geometry, const Place& place, int head, int channel, const T* value,
                   const T* sampling, T* output) {
    for (; channel + kChannels <= geometry.headDim; channel += kChannels) {
        const int64_t first = int64_t{head} * geometry.headDim + channel;
        float sum[kChannels];
        attend<T, kChannels>(geometry, place, head, value + first, sampling, sum);
        for (int c = 0; c < kChannels; ++c) output[first + c] = fromFloat<T>(sum[c]);
    }
    return channel;
}

// One token: all its heads. The usual head sizes are one block; any other is cut into several, each of which makes the
// weights anew.
template <typename T>
void attendToken(const Geometry& geometry, int token, const T* value, const T* sampling, T* output) {
    const Place place = placeOf(geometry, token);
    for (int head = 0; head < geometry.heads; ++head) {
        int channel = attendInBlocks<64>(geometry, place, head, 0, value, sampling, output);
        channel = attendInBlocks<32>(geometry, place, head, channel, value, sampling, output);
        channel = attendInBlocks<16>(geometry, place, head, channel, value, sampling, output);
        channel = attendInBlocks<8>(geometry, place, head, channel, value, sampling, output);
        attendInBlocks<1>(geometry, place, head, channel, value, sampling, output);
    }
}

template <typename T>
void attendRows(const Geometry& geometry, int64_t first, int64_t last, const void* value, const void* sampling,
                void* output) {
    for (int64_t row = first; row < last; ++row) {
        const int64_t image = row / geometry.tokens;
        attendToken(geometry, static_cast<int>(row - image * geometry.tokens),
                    static_cast<const T*>(value) + image * geometry.tokens * geometry.channels(),
                    static_cast<const T*>(sampling) + row * geometry.samplingWidth(),
                    static_cast<T*>(output) + row * geometry.channels());
    }
}

}  // namespace

void deformAttnRows(const Geometry& geometry, int32_t type, int64_t first, int64_t last, const void* value,
                    const void* sampling, void* output) {
    const auto rows = type == PROSCALE_FLOAT  ? attendRows<float>
                      : type == PROSCALE_HALF ? attendRows<half>
                                              : attendRows<bfloat16>;
    rows(geometry, first, last, value, sampling, output);
}

}  // namespace proscale

extern "C" int proscale_deform_attn_host(const ProscaleDeformAttn* op, int32_t batch, const void* value,
                                         const void* sampling, void* output) {
    proscale::Geometry geometry;
    if (!proscale::makeGeometry(op, geometry).empty() || batch < 1) return 1;
    if (value == nullptr || sampling == nullptr || output == nullptr) return 1;
    const int64_t rows = int64_t{batch} * geometry.tokens;
    // Dealt out as threads come free, because the cores may be shared.
#pragma omp parallel for schedule(dynamic)
    for (int64_t first = 0; first < rows; first += proscale::kRowsAtOnce) {
        const int64_t last = std::min(first + proscale::kRowsAtOnce, rows);
        proscale::deformAttnRows(geometry, op->type, first, last, value, sampling, output);
    }
    return 0;
}
