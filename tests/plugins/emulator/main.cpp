// Runs the operator's CUDA launcher once, on tensors from a file:
//     emulate INPUT OUTPUT
// INPUT: the fields of Case, then value and sampling. OUTPUT: the status and the output tensor. Exit status 1: the
// launch failed; the message is on stderr.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "machine.h"
#include "proscale/c_api.h"

namespace {

struct Case {
    ProscaleDeformAttn op;
    int32_t batch, kernel;
    int32_t offset;  // bytes by which every tensor misses an alignment of 256
    int32_t seed;
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

using File = std::unique_ptr<std::FILE, int (*)(std::FILE*)>;

}  // namespace

int main(int count, char** arguments) {
    if (count != 3) return 2;
    const File input(std::fopen(arguments[1], "rb"), std::fclose);
    Case task;
    if (!input || std::fread(&task, sizeof task, 1, input.get()) != 1) return 2;
    Tensor value(task.offset, task.valueBytes), sampling(task.offset, task.samplingBytes);
    Tensor output(task.offset, task.valueBytes);
    if (std::fread(value.data, 1, value.bytes, input.get()) != value.bytes ||
        std::fread(sampling.data, 1, sampling.bytes, input.get()) != sampling.bytes) {
        return 2;
    }

    emulator_seed(static_cast<uint64_t>(task.seed));
    const int32_t status =
        proscale_deform_attn_cuda(&task.op, task.batch, value.data, sampling.data, output.data, task.kernel, nullptr);
    if (*emulator_error()) {
        std::fprintf(stderr, "%s\n", emulator_error());
        return 1;
    }
    const File result(std::fopen(arguments[2], "wb"), std::fclose);
    const bool written = result && std::fwrite(&status, sizeof status, 1, result.get()) == 1 &&
                         std::fwrite(output.data, 1, output.bytes, result.get()) == output.bytes;
    return written ? 0 : 2;
}
