// Makes the plugin from fields: the node's attributes when TensorRT parses a model, DeformAttnPlugin's own when it
// opens an engine.
#pragma once

#include <array>

#include "deform_attn_plugin.h"

namespace proscale {

class DeformAttnCreator final : public nvinfer1::IPluginCreatorV3One {
public:
    DeformAttnCreator() noexcept;

    // Fields `heads`, `points` (one INT32 or INT64) and `levels` (H0, W0, H1, W1, ...), each once and no other. Returns
    // nullptr, and logs one message, if they are not.
    nvinfer1::IPluginV3* createPlugin(const char* name, const nvinfer1::PluginFieldCollection* fields,
                                      nvinfer1::TensorRTPhase phase) noexcept override;

    const nvinfer1::PluginFieldCollection* getFieldNames() noexcept override { return &mCollection; }
    const char* getPluginName() const noexcept override { return kPluginName; }
    const char* getPluginVersion() const noexcept override { return kPluginVersion; }
    const char* getPluginNamespace() const noexcept override { return kPluginNamespace; }

private:
    std::array<nvinfer1::PluginField, 3> mFields;
    nvinfer1::PluginFieldCollection mCollection;
};

}  // namespace proscale
