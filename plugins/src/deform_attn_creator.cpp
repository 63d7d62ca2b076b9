// What TensorRT's ONNX parser does with a node. A local function of the node's op_type, whatever its domain, comes
// first: the function body must leave the model before the plugin is found. Then the parser asks the registry for the
// op_type with the version and namespace of the node's string attributes `plugin_version` and `plugin_namespace`, by
// default "1" and "", and keeps those two to itself. Of the other attributes it passes on those that getFieldNames
// lists, int and ints both as kINT32. An engine gives back the fields of DeformAttnPlugin, as kINT64.
#include "deform_attn_creator.h"

#include <algorithm>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

#include "log.h"

namespace proscale {

using nvinfer1::PluginField;
using nvinfer1::PluginFieldType;

namespace {

constexpr char kExportAgain[] = ": export the model again";

std::string textOf(PluginFieldType type) {
    static const char* const kNames[] = {"FLOAT16", "FLOAT32", "FLOAT64", "INT8",  "INT16", "INT32", "CHAR",
                                         "DIMS",    "UNKNOWN", "BF16",    "INT64", "FP8",   "INT4"};
    const auto index = static_cast<size_t>(type);
    return index < std::size(kNames) ? kNames[index] : "type " + std::to_string(index);
}

std::string textOf(const std::vector<int64_t>& values) {
    std::string text;
    for (const int64_t value : values) text += (text.empty() ? "" : ", ") + std::to_string(value);
    return "[" + text + "]";
}

template <typename T>
std::vector<int64_t> copyOf(const PluginField& field) {
    const T* first = static_cast<const T*>(field.data);
    return {first, first + field.length};
}

// The integers of field `name`, which must be there once.
std::vector<int64_t> valuesOf(const nvinfer1::PluginFieldCollection& fields, const std::string& name,
                              const std::string& expected) {
    const PluginField* found = nullptr;
    for (int32_t i = 0; i < fields.nbFields; ++i) {
        if (name != fields.fields[i].name) continue;
        if (found) throw std::invalid_argument("attribute '" + name + "' is there twice: give it once");
        found = &fields.fields[i];
    }
    const std::string problem = "attribute '" + name + "': expected " + expected + ", found ";
    if (!found) throw std::invalid_argument(problem + "none" + kExportAgain);
    const bool isWide = found->type == PluginFieldType::kINT64;
    if (!isWide && found->type != PluginFieldType::kINT32) {
        throw std::invalid_argument(problem + textOf(found->type) + kExportAgain);
    }
    if (!found->data || found->length < 1) throw std::invalid_argument(problem + "no values" + kExportAgain);
    return isWide ? copyOf<int64_t>(*found) : copyOf<int32_t>(*found);
}

int64_t valueOf(const nvinfer1::PluginFieldCollection& fields, const std::string& name) {
    const std::vector<int64_t> values = valuesOf(fields, name, "one integer");
    if (values.size() == 1) return values.front();
    throw std::invalid_argument("attribute '" + name + "': expected one integer, found " + textOf(values) +
                                kExportAgain);
}

Attributes attributesOf(const nvinfer1::PluginFieldCollection& fields) {
    for (int32_t i = 0; i < fields.nbFields; ++i) {
        const char* name = fields.fields[i].name;
        const std::string text = name ? name : "";
        if (text != "heads" && text != "points" && text != "levels") {
            throw std::invalid_argument("attribute '" + text +
                                        "' is unknown: expected heads, points and levels; leave it out");
        }
    }
    Attributes attributes{valueOf(fields, "heads"), valueOf(fields, "points"), 0, {}};
    const std::string expected =
        "integers, height and width of 1 to " + std::to_string(kMaxLevels) + " levels (H0, W0, H1, W1, ...)";
    const std::vector<int64_t> sizes = valuesOf(fields, "levels", expected);
    if (sizes.size() % 2 != 0 || sizes.size() > attributes.sizes.size()) {
        throw std::invalid_argument("attribute 'levels': expected " + expected + ", found " + textOf(sizes) +
                                    kExportAgain);
    }
    std::copy(sizes.begin(), sizes.end(), attributes.sizes.begin());
    attributes.levels = static_cast<int64_t>(sizes.size() / 2);
    return attributes;
}

DeformAttnPlugin* pluginOf(const Attributes& attributes) {
    try {
        return new DeformAttnPlugin(attributes);
    } catch (const std::invalid_argument& problem) {
        const std::vector<int64_t> sizes(attributes.sizes.begin(), attributes.sizes.begin() + 2 * attributes.levels);
        throw std::invalid_argument(std::string(problem.what()) + ", in attributes heads " +
                                    std::to_string(attributes.heads) + ", points " + std::to_string(attributes.points) +
                                    ", levels " + textOf(sizes) + kExportAgain);
    }
}

}  // namespace

DeformAttnCreator::DeformAttnCreator() noexcept
    : mFields{PluginField("heads", nullptr, PluginFieldType::kINT32, 1),
              PluginField("points", nullptr, PluginFieldType::kINT32, 1),
              // Any length: TensorRT's parser looks at the names only.
              PluginField("levels", nullptr, PluginFieldType::kINT32, 0)} {
    mCollection.nbFields = static_cast<int32_t>(mFields.size());
    mCollection.fields = mFields.data();
}

nvinfer1::IPluginV3* DeformAttnCreator::createPlugin(const char* name, const nvinfer1::PluginFieldCollection* fields,
                                                     nvinfer1::TensorRTPhase /*phase*/) noexcept {
    try {
        return pluginOf(attributesOf(fields && fields->fields ? *fields : nvinfer1::PluginFieldCollection{}));
    } catch (const std::exception& error) {
        logError(error.what(), name);
    }
    return nullptr;
}

}  // namespace proscale
