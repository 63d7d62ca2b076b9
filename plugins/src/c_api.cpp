// The C functions that need no device: in both libraries.
#include "proscale/c_api.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "arguments.h"

extern "C" int32_t proscale_deform_attn_problem(const ProscaleDeformAttn* op, char* text, int32_t capacity) {
    proscale::Geometry geometry;
    const std::string message = proscale::makeGeometry(op, geometry);
    if (text != nullptr && capacity > 0) {
        const auto count = std::min(message.size(), static_cast<size_t>(capacity) - 1);
        std::memcpy(text, message.data(), count);
        text[count] = '\0';
    }
    return static_cast<int32_t>(message.size());
}

extern "C" const char* proscale_version() { return PROSCALE_VERSION; }
