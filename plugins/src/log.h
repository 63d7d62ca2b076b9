// Messages to whoever runs TensorRT.
#pragma once

namespace proscale {

// Sends an error to TensorRT's logger, or to std::cerr where TensorRT has given none.
//   node  its name in the network, if that is known
void logError(const char* message, const char* node = nullptr) noexcept;

}  // namespace proscale
