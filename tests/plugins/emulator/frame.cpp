// Runs the CUDA launcher of the preprocessing once. Reads the fields of Case, the frame and the four tables; writes the
// launcher's status and the output tensor, which was full of NaN before. Exit status 1: the kernel failed; the message
// is on stderr.
#include "cuda_runtime.h"
#include "proscale/frame_api.h"
#include "stream.h"

namespace {

struct Case {
    ProscalePreprocess task;  // its pointers are set here
    int32_t seed;
    int32_t frameOffset, outputOffset;  // bytes by which they miss an alignment of 256
    int32_t frameBytes, columnWeightsBytes, rowWeightsBytes, columnsBytes, rowsBytes, outputBytes;
};

}  // namespace

int main() {
    using namespace emulator;
    Case given;
    read(&given, sizeof given);
    Tensor frame(given.frameOffset, given.frameBytes), output(given.outputOffset, given.outputBytes);
    Tensor columnWeights(0, given.columnWeightsBytes), rowWeights(0, given.rowWeightsBytes);
    Tensor columns(0, given.columnsBytes), rows(0, given.rowsBytes);
    for (Tensor* tensor : {&frame, &columnWeights, &rowWeights, &columns, &rows}) read(tensor->data, tensor->bytes);

    ProscalePreprocess task = given.task;
    task.frame = reinterpret_cast<const uint8_t*>(frame.data);
    task.columns.weights = reinterpret_cast<const int32_t*>(columnWeights.data);
    task.columns.first = reinterpret_cast<const int32_t*>(columns.data);
    task.rows.weights = reinterpret_cast<const int32_t*>(rowWeights.data);
    task.rows.first = reinterpret_cast<const int32_t*>(rows.data);
    task.output = output.data;

    setSeed(static_cast<uint64_t>(given.seed));
    const int32_t status = proscale_preprocess_cuda(&task, nullptr);
    exitOnError(error());
    write(&status, sizeof status);
    write(output.data, output.bytes);
    return 0;
}
