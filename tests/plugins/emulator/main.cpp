// Runs the operator's CUDA launcher once. Reads the fields of Case, value and sampling; writes the launcher's status
// and the output tensor, which was full of NaN before. Exit status 1: the kernel failed; the message is on stderr.
#include "cuda_runtime.h"
#include "proscale/c_api.h"
#include "stream.h"

namespace {

struct Case {
    ProscaleDeformAttn op;
    int32_t batch, kernel;
    int32_t seed, processors;
    int32_t valueOffset, samplingOffset, outputOffset;  // bytes by which they miss an alignment of 256
    int32_t valueBytes, samplingBytes;
};

}  // namespace

int main() {
    using namespace emulator;
    Case task;
    read(&task, sizeof task);
    Tensor value(task.valueOffset, task.valueBytes), sampling(task.samplingOffset, task.samplingBytes);
    Tensor output(task.outputOffset, task.valueBytes);
    read(value.data, value.bytes);
    read(sampling.data, sampling.bytes);

    setSeed(static_cast<uint64_t>(task.seed));
    setProcessors(task.processors);
    const int32_t status =
        proscale_deform_attn_cuda(&task.op, task.batch, value.data, sampling.data, output.data, task.kernel, nullptr);
    exitOnError(error());
    write(&status, sizeof status);
    write(output.data, output.bytes);
    return 0;
}
