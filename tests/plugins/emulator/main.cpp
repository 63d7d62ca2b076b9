// Runs the operator's CUDA launcher once. Reads the fields of Case, value and sampling; writes the launcher's status
// and the output tensor, which was full of NaN before. Exit status 1: the kernel failed; the message is on stderr.
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "cuda_runtime.h"
#include "proscale/c_api.h"

namespace {

struct Case {
    ProscaleDeformAttn op;
    int32_t batch, kernel;
    int32_t seed, processors;
    int32_t valueOffset, samplingOffset, outputOffset;  // bytes by which they miss an alignment of 256
    int32_t valueBytes, samplingBytes;
};

// A tensor that ends where its allocation ends, for the address sanitizer.
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

void read(void* to, size_t bytes) {
    if (std::fread(to, 1, bytes, stdin) != bytes) std::exit(2);
}

void write(const void* from, size_t bytes) {
    if (std::fwrite(from, 1, bytes, stdout) != bytes) std::exit(2);
}

}  // namespace

int main() {
    Case task;
    read(&task, sizeof task);
    Tensor value(task.valueOffset, task.valueBytes), sampling(task.samplingOffset, task.samplingBytes);
    Tensor output(task.outputOffset, task.valueBytes);
    read(value.data, value.bytes);
    read(sampling.data, sampling.bytes);

    emulator::setSeed(static_cast<uint64_t>(task.seed));
    emulator::setProcessors(task.processors);
    const int32_t status =
        proscale_deform_attn_cuda(&task.op, task.batch, value.data, sampling.data, output.data, task.kernel, nullptr);
    if (!emulator::error().empty()) {
        std::fprintf(stderr, "%s\n", emulator::error().c_str());
        return 1;
    }
    write(&status, sizeof status);
    write(output.data, output.bytes);
    return 0;
}
