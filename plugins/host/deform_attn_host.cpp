// The operator on the CPU: loops around the shared math.
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
void deformAttn(const Geometry& geometry, int32_t batch, const void* value, const void* sampling, void* output) {
    const int64_t rows = int64_t{batch} * geometry.tokens;
    // Neighbouring tokens read the same pixels: a thread takes a run of them. Runs are dealt out as threads come free,
    // because the cores may be shared.
#pragma omp parallel for schedule(dynamic, 64)
    for (int64_t row = 0; row < rows; ++row) {
        const int64_t image = row / geometry.tokens;
        attendToken(geometry, static_cast<int>(row - image * geometry.tokens),
                    static_cast<const T*>(value) + image * geometry.tokens * geometry.channels(),
                    static_cast<const T*>(sampling) + row * geometry.samplingWidth(),
                    static_cast<T*>(output) + row * geometry.channels());
    }
}

}  // namespace
}  // namespace proscale

extern "C" int proscale_deform_attn_host(const ProscaleDeformAttn* op, int32_t batch, const void* value,
                                         const void* sampling, void* output) {
    proscale::Geometry geometry;
    if (!proscale::makeGeometry(op, geometry).empty() || batch < 1) return 1;
    if (value == nullptr || sampling == nullptr || output == nullptr) return 1;
    switch (op->type) {
        case PROSCALE_FLOAT:
            proscale::deformAttn<float>(geometry, batch, value, sampling, output);
            break;
        case PROSCALE_HALF:
            proscale::deformAttn<proscale::half>(geometry, batch, value, sampling, output);
            break;
        default:
            proscale::deformAttn<proscale::bfloat16>(geometry, batch, value, sampling, output);
    }
    return 0;
}
