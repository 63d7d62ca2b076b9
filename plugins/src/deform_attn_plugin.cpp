#include "deform_attn_plugin.h"

#include <new>
#include <stdexcept>
#include <string>

#include "launch.h"
#include "log.h"

namespace proscale {

using nvinfer1::DataType;
using nvinfer1::Dims;

namespace {

constexpr char kExportAgain[] = "; the node's attributes do not fit its inputs: export the model again";

// Runs `body`, which throws what is wrong: no exception may reach TensorRT. Returns the status for TensorRT.
template <typename Body>
int32_t reported(Body body) noexcept {
    try {
        body();
        return 0;
    } catch (const std::exception& error) {
        logError(error.what());
        return 1;
    }
}

Geometry geometryOf(const Attributes& attributes, int64_t channelsPerHead) {
    Geometry geometry;
    const std::string problem = makeGeometry(attributes.heads, channelsPerHead, attributes.points,
                                             attributes.sizes.data(), attributes.levels, geometry);
    if (!problem.empty()) throw std::invalid_argument(problem);
    return geometry;
}

bool isSupported(DataType type) {
    return type == DataType::kFLOAT || type == DataType::kHALF || type == DataType::kBF16;
}

ProscaleType typeOf(DataType type) {
    switch (type) {
        case DataType::kFLOAT:
            return PROSCALE_FLOAT;
        case DataType::kHALF:
            return PROSCALE_HALF;
        case DataType::kBF16:
            return PROSCALE_BFLOAT16;
        default:
            throw std::invalid_argument("type " + std::to_string(static_cast<int32_t>(type)) +
                                        ": expected FP32, FP16 or BF16");
    }
}

void checkCounts(int32_t inputs, int32_t outputs) {
    if (inputs != 2 || outputs != 1) {
        throw std::invalid_argument("expected the inputs value and sampling and one output, found " +
                                    std::to_string(inputs) + " inputs and " + std::to_string(outputs) + " outputs");
    }
}

std::string textOf(const Dims& dims) {
    std::string text = "(";
    for (int32_t i = 0; i < dims.nbDims; ++i) text += (i ? ", " : "") + std::to_string(dims.d[i]);
    return text + ")";
}

bool mayBe(int64_t size, int64_t expected) { return size == -1 || size == expected; }

Dims dimsOf(const nvinfer1::DimsExprs& expressions) {
    Dims dims{};
    dims.nbDims = expressions.nbDims;
    for (int32_t i = 0; i < dims.nbDims; ++i) {
        dims.d[i] = expressions.d[i]->isConstant() ? expressions.d[i]->getConstantValue() : -1;
    }
    return dims;
}

}  // namespace

DeformAttnPlugin::DeformAttnPlugin(const Attributes& attributes)
    : mAttributes(attributes), mGeometry(geometryOf(attributes, 1)) {
    using nvinfer1::PluginField;
    using nvinfer1::PluginFieldType;
    mFields = {PluginField("heads", &mAttributes.heads, PluginFieldType::kINT64, 1),
               PluginField("points", &mAttributes.points, PluginFieldType::kINT64, 1),
               PluginField("levels", mAttributes.sizes.data(), PluginFieldType::kINT64, 2 * mGeometry.levels)};
    mCollection.nbFields = static_cast<int32_t>(mFields.size());
    mCollection.fields = mFields.data();
}

nvinfer1::IPluginCapability* DeformAttnPlugin::getCapabilityInterface(nvinfer1::PluginCapabilityType type) noexcept {
    switch (type) {
        case nvinfer1::PluginCapabilityType::kCORE:
            return static_cast<nvinfer1::IPluginV3OneCore*>(this);
        case nvinfer1::PluginCapabilityType::kBUILD:
            return static_cast<nvinfer1::IPluginV3OneBuild*>(this);
        case nvinfer1::PluginCapabilityType::kRUNTIME:
            return static_cast<nvinfer1::IPluginV3OneRuntime*>(this);
    }
    return nullptr;
}

DeformAttnPlugin* DeformAttnPlugin::clone() noexcept {
    DeformAttnPlugin* copy = nullptr;
    reported([&] { copy = new DeformAttnPlugin(mAttributes); });
    return copy;
}

int32_t DeformAttnPlugin::getOutputDataTypes(DataType* outputTypes, int32_t nbOutputs, const DataType* inputTypes,
                                             int32_t nbInputs) const noexcept {
    return reported([&] {
        checkCounts(nbInputs, nbOutputs);
        if (typeOf(inputTypes[0]) != typeOf(inputTypes[1])) {
            throw std::invalid_argument("value and sampling differ in type: cast one of them");
        }
        outputTypes[0] = inputTypes[0];
    });
}

int32_t DeformAttnPlugin::getOutputShapes(const nvinfer1::DimsExprs* inputs, int32_t nbInputs,
                                          const nvinfer1::DimsExprs* /*shapeInputs*/, int32_t /*nbShapeInputs*/,
                                          nvinfer1::DimsExprs* outputs, int32_t nbOutputs,
                                          nvinfer1::IExprBuilder& /*exprBuilder*/) noexcept {
    return reported([&] {
        checkCounts(nbInputs, nbOutputs);
        geometryFor(dimsOf(inputs[0]), dimsOf(inputs[1]));
        outputs[0] = inputs[0];
    });
}

// A strongly typed network fixes the types and asks which of them will do; a weakly typed one tries them all.
bool DeformAttnPlugin::supportsFormatCombination(int32_t pos, const nvinfer1::DynamicPluginTensorDesc* inOut,
                                                 int32_t nbInputs, int32_t nbOutputs) noexcept {
    if (nbInputs != 2 || nbOutputs != 1 || pos < 0 || pos > 2) return false;
    const nvinfer1::PluginTensorDesc& tensor = inOut[pos].desc;
    return tensor.format == nvinfer1::TensorFormat::kLINEAR && isSupported(tensor.type) &&
           tensor.type == inOut[0].desc.type;
}

int32_t DeformAttnPlugin::configurePlugin(const nvinfer1::DynamicPluginTensorDesc* in, int32_t nbInputs,
                                          const nvinfer1::DynamicPluginTensorDesc* /*out*/,
                                          int32_t nbOutputs) noexcept {
    return reported([&] {
        checkCounts(nbInputs, nbOutputs);
        geometryFor(in[0].desc.dims, in[1].desc.dims);
    });
}

int32_t DeformAttnPlugin::onShapeChange(const nvinfer1::PluginTensorDesc* in, int32_t nbInputs,
                                        const nvinfer1::PluginTensorDesc* /*out*/, int32_t nbOutputs) noexcept {
    return reported([&] {
        checkCounts(nbInputs, nbOutputs);
        geometryFor(in[0].dims, in[1].dims);
    });
}

int32_t DeformAttnPlugin::enqueue(const nvinfer1::PluginTensorDesc* inputDesc,
                                  const nvinfer1::PluginTensorDesc* /*outputDesc*/, const void* const* inputs,
                                  void* const* outputs, void* /*workspace*/, cudaStream_t stream) noexcept {
    return reported([&] {
        const Geometry geometry = geometryFor(inputDesc[0].dims, inputDesc[1].dims);
        const auto batch = static_cast<int32_t>(inputDesc[0].dims.d[0]);
        if (batch == 0) return;  // nothing to launch: CUDA refuses an empty grid
        const cudaError_t error = deformAttn(geometry, typeOf(inputDesc[0].type), batch, inputs[0], inputs[1],
                                             outputs[0], PROSCALE_AUTO, stream);
        if (error != cudaSuccess) {
            throw std::runtime_error(std::string("the kernel could not be launched: ") + cudaGetErrorName(error) +
                                     ", " + cudaGetErrorString(error));
        }
    });
}

nvinfer1::IPluginV3* DeformAttnPlugin::attachToContext(nvinfer1::IPluginResourceContext* /*context*/) noexcept {
    return clone();
}

Geometry DeformAttnPlugin::geometryFor(const Dims& value, const Dims& sampling) const {
    const int64_t tokens = mGeometry.tokens, width = mGeometry.samplingWidth(), heads = mGeometry.heads;
    if (value.nbDims != 3 || !mayBe(value.d[1], tokens) || (value.d[2] != -1 && value.d[2] % heads != 0)) {
        throw std::invalid_argument("value: expected (batch, " + std::to_string(tokens) +
                                    ", channels), channels a multiple of heads = " + std::to_string(heads) +
                                    ", found " + textOf(value) + kExportAgain);
    }
    if (sampling.nbDims != 3 || !mayBe(sampling.d[1], tokens) || !mayBe(sampling.d[2], width)) {
        throw std::invalid_argument(
            "sampling: expected (batch, " + std::to_string(tokens) + ", " + std::to_string(width) +
            "), the width being heads " + std::to_string(heads) + " x levels " + std::to_string(mGeometry.levels) +
            " x points " + std::to_string(mGeometry.points) + " x 3, found " + textOf(sampling) + kExportAgain);
    }
    if (value.d[0] != -1 && !mayBe(sampling.d[0], value.d[0])) {
        throw std::invalid_argument("value and sampling differ in batch: " + textOf(value) + " and " +
                                    textOf(sampling));
    }
    return value.d[2] == -1 ? mGeometry : geometryOf(mAttributes, value.d[2] / heads);
}

}  // namespace proscale
