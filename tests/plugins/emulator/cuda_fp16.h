// half.
#pragma once

#include "cuda_runtime.h"
#include "narrow_float.h"

using __half = emulator::NarrowFloat<10>;
using __half2 = emulator::Pair<__half>;
using half = __half;
using half2 = __half2;

inline float __half2float(__half x) { return static_cast<float>(x.value()); }
inline __half __float2half_rn(float x) { return __half(x); }
inline float2 __half22float2(__half2 x) { return {__low2float(x), __high2float(x)}; }
inline __half2 __floats2half2_rn(float x, float y) { return {__half(x), __half(y)}; }
inline __half2 __low2half2(__half2 x) { return {x.x, x.x}; }
inline __half2 __high2half2(__half2 x) { return {x.y, x.y}; }
