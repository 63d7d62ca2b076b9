// bfloat16.
#pragma once

#include "cuda_runtime.h"
#include "narrow_float.h"

using __nv_bfloat16 = emulator::NarrowFloat<7>;

inline float __bfloat162float(__nv_bfloat16 x) { return static_cast<float>(x.value()); }
inline __nv_bfloat16 __float2bfloat16_rn(float x) { return __nv_bfloat16(x); }
