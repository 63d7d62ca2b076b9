// Element types of the tensors: float, half, bfloat16. CUDA's own under nvcc; elsewhere their bits, converted here.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

#include "proscale/host_device.h"

namespace proscale {

inline float floatOf(uint32_t bits) {
    float x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
}
inline uint32_t bitsOf(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    return bits;
}

#if defined(__CUDACC__)
using half = __half;
using bfloat16 = __nv_bfloat16;

PROSCALE_HD float toFloat(half x) { return __half2float(x); }
PROSCALE_HD float toFloat(bfloat16 x) { return __bfloat162float(x); }
template <typename T>
PROSCALE_HD T fromFloat(float x);
template <>
PROSCALE_HD half fromFloat<half>(float x) {
    return __float2half_rn(x);
}
template <>
PROSCALE_HD bfloat16 fromFloat<bfloat16>(float x) {
    return __float2bfloat16_rn(x);
}
#else
struct half {
    uint16_t bits;
};
struct bfloat16 {
    uint16_t bits;
};

inline float toFloat(bfloat16 x) { return floatOf(uint32_t{x.bits} << 16); }
inline float toFloat(half x) {
    const uint32_t sign = uint32_t{x.bits & 0x8000u} << 16;
    const uint32_t magnitude = x.bits & 0x7fffu;
    // A half's exponent and fraction, moved into a float's place, are 2^112 too small; subnormals come out right too.
    const uint32_t finite = bitsOf(floatOf(magnitude << 13) * 0x1p112f);
    return floatOf(sign | finite | (magnitude >= 0x7c00u ? 0x7f800000u : 0u));  // the last: Inf, NaN; no branch
}

template <typename T>
inline T fromFloat(float x);
template <>
inline bfloat16 fromFloat<bfloat16>(float x) {
    const uint32_t bits = bitsOf(x);
    if (x != x) return {static_cast<uint16_t>(bits >> 16 | 0x40u)};
    return {static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16)};  // to nearest, ties to even
}
template <>
inline half fromFloat<half>(float x) {
    const uint32_t bits = bitsOf(x);
    const auto sign = static_cast<uint16_t>(bits >> 16 & 0x8000u);
    const uint32_t magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return {static_cast<uint16_t>(sign | 0x7e00u)};   // NaN
    if (magnitude >= 0x477ff000u) return {static_cast<uint16_t>(sign | 0x7c00u)};  // 65520 and above round to Inf
    if (magnitude < 0x38800000u) {
        // Below 2^-14 a half is a multiple of 2^-24: adding 0.5 lets the float adder round to just that.
        return {static_cast<uint16_t>(sign | (bitsOf(floatOf(magnitude) + 0.5f) - bitsOf(0.5f)))};
    }
    const uint32_t rounded = magnitude + 0xfffu + (magnitude >> 13 & 1u);  // to nearest, ties to even
    return {static_cast<uint16_t>(sign | (rounded - 0x38000000u) >> 13)};
}
#endif

PROSCALE_HD float toFloat(float x) { return x; }
template <>
PROSCALE_HD float fromFloat<float>(float x) {
    return x;
}

}  // namespace proscale
