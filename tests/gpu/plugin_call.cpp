// One call of the plugin as TensorRT makes it, from the node's attributes to the queued kernel, on memory and a stream
// that the caller made. Linked to libproscale_plugin.so, of which it uses the two entry points only.
#include "fakes.h"

using namespace nvinfer1;

namespace {

struct Task {
    int64_t heads, points;
    const int32_t* levels;  // H0, W0, H1, W1, ...
    int32_t levelValues;
    DataType type;
    int64_t batch, tokens, channels, samplingWidth;
};

PluginTensorDesc valueOf(const Task& task, int64_t batch) {
    return tensor({batch, task.tokens, task.channels}, task.type);
}

PluginTensorDesc samplingOf(const Task& task, int64_t batch) {
    return tensor({batch, task.tokens, task.samplingWidth}, task.type);
}

DynamicPluginTensorDesc dynamic(const PluginTensorDesc& any, const PluginTensorDesc& least,
                                const PluginTensorDesc& most) {
    DynamicPluginTensorDesc desc{};
    desc.desc = any;
    desc.min = least.dims;
    desc.opt = most.dims;
    desc.max = most.dims;
    return desc;
}

// Builds, and gives what an engine would hold.
Plugin builtAndReopened(const Task& task) {
    const auto heads = static_cast<int32_t>(task.heads), points = static_cast<int32_t>(task.points);
    const Plugin parsed = create({{"heads", &heads, PluginFieldType::kINT32, 1},
                                  {"points", &points, PluginFieldType::kINT32, 1},
                                  {"levels", task.levels, PluginFieldType::kINT32, task.levelValues}});
    CHECK(parsed != nullptr);
    if (!parsed) return nullptr;

    const DynamicPluginTensorDesc value = dynamic(valueOf(task, -1), valueOf(task, 1), valueOf(task, task.batch));
    const DynamicPluginTensorDesc sampling =
        dynamic(samplingOf(task, -1), samplingOf(task, 1), samplingOf(task, task.batch));
    const DynamicPluginTensorDesc all[3] = {value, sampling, value};
    for (int32_t i = 0; i < 3; ++i) CHECK(build(*parsed).supportsFormatCombination(i, all, 2, 1));
    CHECK(build(*parsed).configurePlugin(all, 2, all + 2, 1) == 0);
    CHECK(build(*parsed).getWorkspaceSize(all, 2, all + 2, 1) == 0);

    const PluginFieldCollection* stored = runtime(*parsed).getFieldsToSerialize();
    return create(Fields(stored->fields, stored->fields + stored->nbFields), TensorRTPhase::kRUNTIME);
}

}  // namespace

// `type` is a nvinfer1::DataType. Returns how many checks failed; their lines are on stdout.
extern "C" int32_t plugin_call(int64_t heads, int64_t points, const int32_t* levels, int32_t levelValues, int32_t type,
                               int64_t batch, int64_t tokens, int64_t channels, int64_t samplingWidth,
                               const void* value, const void* sampling, void* output, void* stream) {
    const Task task{heads, points, levels,   levelValues,  static_cast<DataType>(type),
                    batch, tokens, channels, samplingWidth};
    Checks::failed = 0;
    const Log log;
    const Plugin opened = builtAndReopened(task);
    CHECK(opened != nullptr);
    if (!opened) return Checks::failed;
    const Plugin attached(runtime(*opened).attachToContext(nullptr));

    const PluginTensorDesc in[2] = {valueOf(task, batch), samplingOf(task, batch)};
    const PluginTensorDesc out = in[0];
    const void* const inputs[2] = {value, sampling};
    void* const outputs[1] = {output};
    CHECK(runtime(*attached).onShapeChange(in, 2, &out, 1) == 0);
    CHECK(runtime(*attached).enqueue(in, &out, inputs, outputs, nullptr, static_cast<cudaStream_t>(stream)) == 0);
    CHECK(log.errors().empty());
    return Checks::failed;
}
