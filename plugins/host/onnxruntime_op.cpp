// The operator for ONNX Runtime on the CPU: SessionOptions.register_custom_ops_library(path of this library).
#include <algorithm>
#include <cstdint>
#include <iterator>
#include <memory>
#include <mutex>
#include <string>

#include "deform_attn_host.h"
#include "onnxruntime_api.h"
#include "proscale/c_api.h"
#include "proscale/geometry.h"

namespace proscale::ort {
namespace {

// One element type of the operator; its address is what ONNX Runtime keeps.
struct Operator : CustomOp {
    ElementType element;
    ProscaleType type;
};

// One node.
struct Kernel {
    const Api* api;
    ProscaleType type;
    int64_t heads, points, levels;
    int64_t sizes[2 * kMaxLevels];
};

Status* wrong(const Api* api, const std::string& what) {
    return api->error(kInvalidArgument, ("ProScaleMSDeformAttn: " + what).c_str());
}

Status* create(const CustomOp* op, const Api* api, const KernelInfo* info, void** result) {
    auto kernel = std::make_unique<Kernel>();
    kernel->api = api;
    kernel->type = static_cast<const Operator*>(op)->type;
    size_t count = std::size(kernel->sizes);
    if (Status* status = api->attribute(info, "heads", &kernel->heads)) return status;
    if (Status* status = api->attribute(info, "points", &kernel->points)) return status;
    if (Status* status = api->attribute(info, "levels", kernel->sizes, &count)) return status;
    if (count % 2 != 0) return wrong(api, "levels: expected pairs of height and width");
    kernel->levels = static_cast<int64_t>(count / 2);
    Geometry geometry;
    const std::string problem = makeGeometry(kernel->heads, 1, kernel->points, kernel->sizes, kernel->levels, geometry);
    if (!problem.empty()) return wrong(api, problem);
    *result = kernel.release();
    return nullptr;
}

struct Tensor {
    int64_t sizes[3];
    void* data;
};

// An input of three dimensions.
Status* read(const Api* api, const KernelContext* context, size_t index, Tensor* tensor) {
    const Value* value;
    Shape* shape;
    size_t rank;
    if (Status* status = api->input(context, index, &value)) return status;
    if (Status* status = api->data(value, &tensor->data)) return status;
    if (Status* status = api->shape(value, &shape)) return status;
    Status* status = api->rank(shape, &rank);
    if (status == nullptr) {
        status = rank == 3 ? api->sizes(shape, tensor->sizes, rank) : wrong(api, "expected inputs of three dimensions");
    }
    api->release(shape);
    return status;
}

struct Work {
    Geometry geometry;
    ProscaleType type;
    int64_t rows;
    const void *value, *sampling;
    void* output;

    void operator()(size_t run) const {
        const int64_t first = static_cast<int64_t>(run) * kRowsAtOnce;
        deformAttnRows(geometry, type, first, std::min(first + kRowsAtOnce, rows), value, sampling, output);
    }
};

Status* compute(void* state, KernelContext* context) {
    const auto& kernel = *static_cast<const Kernel*>(state);
    const Api* api = kernel.api;
    Tensor value, sampling;
    if (Status* status = read(api, context, 0, &value)) return status;
    if (Status* status = read(api, context, 1, &sampling)) return status;

    Work work;
    const int64_t batch = value.sizes[0], channels = value.sizes[2];
    const std::string problem =
        makeGeometry(kernel.heads, channels / kernel.heads, kernel.points, kernel.sizes, kernel.levels, work.geometry);
    if (!problem.empty()) return wrong(api, problem);
    if (channels != work.geometry.channels() || value.sizes[1] != work.geometry.tokens || sampling.sizes[0] != batch ||
        sampling.sizes[1] != work.geometry.tokens || sampling.sizes[2] != work.geometry.samplingWidth()) {
        return wrong(api, "the shapes of value and sampling do not fit its attributes");
    }

    Value* output;
    if (Status* status = api->output(context, 0, value.sizes, 3, &output)) return status;
    if (Status* status = api->data(output, &work.output)) return status;
    work.type = kernel.type;
    work.rows = batch * work.geometry.tokens;
    work.value = value.data;
    work.sampling = sampling.data;
    const auto runs = static_cast<size_t>((work.rows + kRowsAtOnce - 1) / kRowsAtOnce);
    return api->parallelFor(
        context, [](void* data, size_t run) { (*static_cast<const Work*>(data))(run); }, runs, &work);
}

Operator makeOperator(ElementType element, ProscaleType type) {
    Operator op{};
    op.version = kVersion;
    op.name = [](const CustomOp*) { return "ProScaleMSDeformAttn"; };
    op.executionProvider = [](const CustomOp*) -> const char* { return nullptr; };  // the CPU
    op.inputCount = [](const CustomOp*) -> size_t { return 2; };
    op.outputCount = [](const CustomOp*) -> size_t { return 1; };
    op.inputType =
        op.outputType = [](const CustomOp* self, size_t) { return static_cast<const Operator*>(self)->element; };
    op.inputCharacteristic = op.outputCharacteristic =
        op.inputMemory = [](const CustomOp*, size_t) -> int32_t { return 0; };
    op.create = create;
    op.compute = compute;
    op.destroyKernel = [](void* kernel) { delete static_cast<Kernel*>(kernel); };
    op.element = element;
    op.type = type;
    return op;
}

Status* makeDomain(const Api* api, Domain** result) {
    static Operator operators[] = {makeOperator(kFloat, PROSCALE_FLOAT), makeOperator(kHalf, PROSCALE_HALF)};
    if (Status* status = api->createDomain("proscale", result)) return status;
    for (Operator& op : operators) {
        if (Status* status = api->addOperator(*result, &op)) return status;
    }
    return nullptr;
}

}  // namespace
}  // namespace proscale::ort

// What ONNX Runtime looks for in a library of custom operators.
extern "C" proscale::ort::Status* RegisterCustomOps(proscale::ort::SessionOptions* options,
                                                    const proscale::ort::ApiBase* base) {
    using namespace proscale::ort;
    const Api* api = base->api(kVersion);
    if (api == nullptr) return base->api(1)->error(kFail, "ProScaleMSDeformAttn needs ONNX Runtime 1.17 or newer");
    // One for all sessions, which refer to it: it lives as long as the library does.
    static std::mutex mutex;
    static Domain* domain = nullptr;
    const std::lock_guard<std::mutex> lock(mutex);
    if (domain == nullptr) {
        Domain* made;
        if (Status* status = makeDomain(api, &made)) return status;
        domain = made;
    }
    return api->addDomain(options, domain);
}
