// How the programs are given their tensors: by standard input and output.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

namespace emulator {

inline void read(void* to, size_t bytes) {
    if (std::fread(to, 1, bytes, stdin) != bytes) std::exit(2);
}

inline void write(const void* from, size_t bytes) {
    if (std::fwrite(from, 1, bytes, stdout) != bytes) std::exit(2);
}

// A tensor that ends where its allocation ends, for the address sanitizer; full of NaN. `offset`: bytes by which it
// misses an alignment of 256.
struct Tensor {
    Tensor(int32_t offset, int32_t bytes) : whole(nullptr), bytes(static_cast<size_t>(bytes)) {
        if (posix_memalign(&whole, 256, static_cast<size_t>(offset) + this->bytes)) std::abort();
        data = static_cast<char*>(whole) + offset;
        std::memset(data, 0xff, this->bytes);
    }
    ~Tensor() { std::free(whole); }
    Tensor(const Tensor&) = delete;
    Tensor& operator=(const Tensor&) = delete;

    void* whole;
    char* data;
    size_t bytes;
};

// Exit status 1 with the message on stderr if the last launch failed.
inline void exitOnError(const std::string& message) {
    if (message.empty()) return;
    std::fprintf(stderr, "%s\n", message.c_str());
    std::exit(1);
}

}  // namespace emulator
