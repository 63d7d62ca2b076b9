// ProScaleMSDeformAttn as a TensorRT plugin: inputs `value` and `sampling`, one output; the layouts and the attributes
// are those of proscale_deploy/core/operator.py.
//
// Height and width are attributes; only the batch may be dynamic. The plugin never changes after it was made: every
// context gets a clone, and any number of threads may call one.
#pragma once

#include <NvInferVersion.h>
// TensorRT 10.3 is JetPack 6's; what came before has other plugin interfaces.
#if NV_TENSORRT_MAJOR < 10 || (NV_TENSORRT_MAJOR == 10 && NV_TENSORRT_MINOR < 3)
#error "This plugin needs the headers of TensorRT 10.3 or later: give their place as TENSORRT_ROOT."
#endif
#include <NvInferRuntime.h>

#include <array>
#include <cstdint>

#include "proscale/geometry.h"

namespace proscale {

inline constexpr char kPluginName[] = "ProScaleMSDeformAttn";
inline constexpr char kPluginVersion[] = "1";
inline constexpr char kPluginNamespace[] = "";

struct Attributes {
    int64_t heads, points;
    int64_t levels;                             // how many
    std::array<int64_t, 2 * kMaxLevels> sizes;  // H0, W0, H1, W1, ... of the levels
};

class DeformAttnPlugin final : public nvinfer1::IPluginV3,
                               public nvinfer1::IPluginV3OneCore,
                               public nvinfer1::IPluginV3OneBuild,
                               public nvinfer1::IPluginV3OneRuntime {
public:
    // Throws std::invalid_argument if the attributes are out of range.
    explicit DeformAttnPlugin(const Attributes& attributes);
    // TensorRT keeps pointers into the object.
    DeformAttnPlugin(const DeformAttnPlugin&) = delete;
    DeformAttnPlugin& operator=(const DeformAttnPlugin&) = delete;

    nvinfer1::IPluginCapability* getCapabilityInterface(nvinfer1::PluginCapabilityType type) noexcept override;
    DeformAttnPlugin* clone() noexcept override;

    const char* getPluginName() const noexcept override { return kPluginName; }
    const char* getPluginVersion() const noexcept override { return kPluginVersion; }
    const char* getPluginNamespace() const noexcept override { return kPluginNamespace; }

    // Build. A status other than 0 comes with a message in the log.
    int32_t getNbOutputs() const noexcept override { return 1; }
    int32_t getOutputDataTypes(nvinfer1::DataType* outputTypes, int32_t nbOutputs, const nvinfer1::DataType* inputTypes,
                               int32_t nbInputs) const noexcept override;
    int32_t getOutputShapes(const nvinfer1::DimsExprs* inputs, int32_t nbInputs, const nvinfer1::DimsExprs* shapeInputs,
                            int32_t nbShapeInputs, nvinfer1::DimsExprs* outputs, int32_t nbOutputs,
                            nvinfer1::IExprBuilder& exprBuilder) noexcept override;
    bool supportsFormatCombination(int32_t pos, const nvinfer1::DynamicPluginTensorDesc* inOut, int32_t nbInputs,
                                   int32_t nbOutputs) noexcept override;
    int32_t configurePlugin(const nvinfer1::DynamicPluginTensorDesc* in, int32_t nbInputs,
                            const nvinfer1::DynamicPluginTensorDesc* out, int32_t nbOutputs) noexcept override;

    // Runtime.
    int32_t onShapeChange(const nvinfer1::PluginTensorDesc* in, int32_t nbInputs, const nvinfer1::PluginTensorDesc* out,
                          int32_t nbOutputs) noexcept override;
    int32_t enqueue(const nvinfer1::PluginTensorDesc* inputDesc, const nvinfer1::PluginTensorDesc* outputDesc,
                    const void* const* inputs, void* const* outputs, void* workspace,
                    cudaStream_t stream) noexcept override;
    nvinfer1::IPluginV3* attachToContext(nvinfer1::IPluginResourceContext* context) noexcept override;
    const nvinfer1::PluginFieldCollection* getFieldsToSerialize() noexcept override { return &mCollection; }

private:
    // The geometry for inputs of these shapes, where -1 is a size that is not known yet; channels per head are 1 while
    // the channels are not known. Throws std::invalid_argument.
    Geometry geometryFor(const nvinfer1::Dims& value, const nvinfer1::Dims& sampling) const;

    const Attributes mAttributes;
    Geometry mGeometry;  // with one channel per head
    std::array<nvinfer1::PluginField, 3> mFields;
    nvinfer1::PluginFieldCollection mCollection;
};

}  // namespace proscale
