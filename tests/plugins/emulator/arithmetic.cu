// The stand-ins for half (argument "half") and bfloat16: reads three numbers a, b, c of the type and a float f at a
// time; writes fma(a, b, c), a + b, a * b and f rounded to the type, and a as a float.
#include <cstdio>
#include <string>

#include "cuda_bf16.h"
#include "cuda_fp16.h"

template <typename Number>
void compute(Number (*round)(float), float (*widen)(Number)) {
    struct {
        Number a, b, c, padding;
        float f;
    } in;
    while (std::fread(&in, sizeof in, 1, stdin) == 1) {
        const struct {
            Number fma, sum, product, rounded;
            float wide;
        } out{__hfma(in.a, in.b, in.c), __hadd(in.a, in.b), __hmul(in.a, in.b), round(in.f), widen(in.a)};
        std::fwrite(&out, sizeof out, 1, stdout);
    }
}

int main(int, char** arguments) {
    if (arguments[1] == std::string("half")) {
        compute<__half>(__float2half_rn, __half2float);
    } else {
        compute<__nv_bfloat16>(__float2bfloat16_rn, __bfloat162float);
    }
    return 0;
}
