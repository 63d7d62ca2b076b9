// Floating-point types of 16 bits. Every operation is computed in double and rounded once, to nearest, ties to even.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

namespace emulator {

template <int kFractionBits>
class alignas(2) NarrowFloat {
public:
    NarrowFloat() = default;
    explicit NarrowFloat(double x) : bits(encode(x)) {}
    double value() const {
        static const std::vector<double> table = [] {
            std::vector<double> values(1 << 16);
            for (unsigned b = 0; b < values.size(); ++b) values[b] = decode(b);
            return values;
        }();
        return table[bits];
    }
    uint16_t bits;

private:
    static constexpr int kBias = (1 << (14 - kFractionBits)) - 1;
    static constexpr uint16_t kInfinity = 0x7fff >> kFractionBits << kFractionBits;

    static double decode(unsigned bits) {
        const int exponent = static_cast<int>(bits >> kFractionBits & ((1u << (15 - kFractionBits)) - 1));
        const unsigned fraction = bits & ((1u << kFractionBits) - 1);
        const double sign = bits & 0x8000u ? -1. : 1.;
        if (exponent == 2 * kBias + 1) {
            return fraction ? std::numeric_limits<double>::quiet_NaN() : sign * std::numeric_limits<double>::infinity();
        }
        const unsigned significand = exponent ? fraction | 1u << kFractionBits : fraction;
        return sign * std::ldexp(significand, (exponent ? exponent : 1) - kBias - kFractionBits);
    }

    static uint16_t encode(double x) {
        if (std::isnan(x)) return 0x7fff;  // the device's only NaN
        const uint16_t sign = std::signbit(x) ? 0x8000 : 0;
        x = std::fabs(x);
        if (x >= std::ldexp(1., kBias + 1)) return sign | kInfinity;
        const int exponent = x > 0. ? std::max(std::ilogb(x), 1 - kBias) : 1 - kBias;
        // A carry out of the fraction counts up the exponent, which is just right, up to infinity.
        const auto significand = static_cast<int>(std::nearbyint(std::ldexp(x, kFractionBits - exponent)));
        return static_cast<uint16_t>(sign | (((exponent + kBias - 1) << kFractionBits) + significand));
    }
};

// a * b + c, rounded to odd, so that rounding it once more to 16 bits is right.
inline double fusedMultiplyAdd(double a, double b, double c) {
    const double product = a * b;  // exact: twice the bits of the fraction are fewer than 53
    const double sum = product + c;
    if (!std::isfinite(sum)) return sum;
    const double part = sum - product;
    const double error = (product - (sum - part)) + (c - part);
    int64_t bits;
    std::memcpy(&bits, &sum, sizeof bits);
    if (error == 0. || bits & 1) return sum;
    return std::nextafter(sum, error > 0. ? HUGE_VAL : -HUGE_VAL);
}

template <typename Number>
struct alignas(4) Pair {
    Number x, y;
};

}  // namespace emulator

// The intrinsics that CUDA has for both types under one name.
template <int k>
emulator::NarrowFloat<k> __hadd(emulator::NarrowFloat<k> a, emulator::NarrowFloat<k> b) {
    return emulator::NarrowFloat<k>(emulator::fusedMultiplyAdd(a.value(), 1., b.value()));
}
template <int k>
emulator::NarrowFloat<k> __hmul(emulator::NarrowFloat<k> a, emulator::NarrowFloat<k> b) {
    return emulator::NarrowFloat<k>(a.value() * b.value());
}
template <int k>
emulator::NarrowFloat<k> __hfma(emulator::NarrowFloat<k> a, emulator::NarrowFloat<k> b, emulator::NarrowFloat<k> c) {
    return emulator::NarrowFloat<k>(emulator::fusedMultiplyAdd(a.value(), b.value(), c.value()));
}
template <typename Number>
emulator::Pair<Number> __hmul2(emulator::Pair<Number> a, emulator::Pair<Number> b) {
    return {__hmul(a.x, b.x), __hmul(a.y, b.y)};
}
template <typename Number>
emulator::Pair<Number> __hfma2(emulator::Pair<Number> a, emulator::Pair<Number> b, emulator::Pair<Number> c) {
    return {__hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y)};
}
template <typename Number>
float __low2float(emulator::Pair<Number> pair) {
    return static_cast<float>(pair.x.value());
}
template <typename Number>
float __high2float(emulator::Pair<Number> pair) {
    return static_cast<float>(pair.y.value());
}
