// Runs one CUDA launcher of mask_api.h. Reads the fields of Case, the arrays that the launcher reads; writes its status
// and the arrays that it writes, which were full of ones before. Exit status 1: the kernel failed; the message is on
// stderr.
#include <memory>

#include "cuda_runtime.h"
#include "proscale/mask_api.h"
#include "stream.h"

namespace {

enum What { kPanoptic, kSemantic, kInstances, kRelabel, kCountNonfinite };

constexpr int kMostArrays = 6;

struct Case {
    int32_t what;
    int32_t seed;
    int32_t count;         // of kept queries, classes, wanted queries; of entries; nothing
    int32_t logitsOffset;  // bytes by which they miss an alignment of 256
    ProscaleMasks masks;   // its pointers are set here
    int32_t inputs, outputs;
    int32_t bytes[kMostArrays];  // of the inputs, then of the outputs
};

// The address of an array of any type.
struct Any {
    void* address;
    template <typename T>
    operator T*() const {
        return static_cast<T*>(address);
    }
};

}  // namespace

int main() {
    using namespace emulator;
    Case given;
    read(&given, sizeof given);
    std::vector<std::unique_ptr<Tensor>> tensors;
    for (int i = 0; i < given.inputs + given.outputs; ++i) {
        const bool areLogits = i == 0 && given.what != kRelabel;
        tensors.push_back(std::make_unique<Tensor>(areLogits ? given.logitsOffset : 0, given.bytes[i]));
        if (i < given.inputs) read(tensors[i]->data, tensors[i]->bytes);
    }
    const auto input = [&](int i) { return Any{tensors[i]->data}; };
    const auto output = [&](int i) { return Any{tensors[given.inputs + i]->data}; };

    setSeed(static_cast<uint64_t>(given.seed));
    int32_t status = 0;
    ProscaleMasks masks = given.masks;
    if (given.what <= kInstances) {
        masks.logits = input(0);
        masks.rows = input(1);
        masks.columns = masks.rows + masks.output_height;
    }
    if (given.what == kPanoptic) {
        const ProscalePanoptic task{given.count, input(2), input(3), output(0), output(1)};
        status = proscale_panoptic_cuda(&masks, &task, nullptr);
    } else if (given.what == kSemantic) {
        const ProscaleSemantic task{given.count, input(2), output(0), output(1)};
        status = proscale_semantic_cuda(&masks, &task, nullptr);
    } else if (given.what == kInstances) {
        const ProscaleInstances task{given.count, input(2), output(0), output(1)};
        status = proscale_instances_cuda(&masks, &task, nullptr);
    } else if (given.what == kRelabel) {
        const int64_t pixels = int64_t{masks.output_height} * masks.output_width;
        status = proscale_relabel_cuda(input(0), pixels, input(1), given.count, output(0), nullptr);
    } else {
        const int64_t count = int64_t{masks.queries} * masks.height * masks.width;
        status = proscale_count_nonfinite_cuda(masks.type, input(0), count, output(0), nullptr);
    }
    exitOnError(error());
    write(&status, sizeof status);
    for (int i = 0; i < given.outputs; ++i) write(tensors[given.inputs + i]->data, tensors[given.inputs + i]->bytes);
    return 0;
}
