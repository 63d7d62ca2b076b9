// What the builder asks: types, formats, shapes.
#include <algorithm>

#include "fakes.h"

using namespace nvinfer1;

namespace {

const DataType kTypes[] = {DataType::kFLOAT, DataType::kHALF, DataType::kBF16};

// A prefix that TensorRT may have settled on, every candidate after it, and anything behind the candidate.
void testFormats() {
    const Plugin plugin = createGood();
    int32_t accepted = 0, asked = 0;
    for (const DataType settled : kTypes) {
        for (int32_t pos = 0; pos < 3; ++pos) {
            for (int32_t type = 0; type < EnumMax<DataType>(); ++type) {
                for (int32_t format = 0; format < EnumMax<TensorFormat>(); ++format) {
                    for (const DataType behind : {DataType::kFLOAT, DataType::kHALF, DataType::kINT8}) {
                        DynamicPluginTensorDesc tensors[3]{};
                        for (int32_t i = 0; i < 3; ++i) {
                            tensors[i].desc.type = i < pos ? settled : behind;
                            tensors[i].desc.format = i < pos ? TensorFormat::kLINEAR : TensorFormat::kCHW32;
                        }
                        tensors[pos].desc.type = static_cast<DataType>(type);
                        tensors[pos].desc.format = static_cast<TensorFormat>(format);

                        const bool isKnown = type == 0 || type == 1 || type == 7;  // FP32, FP16, BF16
                        const bool isSame = pos == 0 || type == static_cast<int32_t>(settled);
                        const bool expected = format == 0 && isKnown && isSame;
                        CHECK(build(*plugin).supportsFormatCombination(pos, tensors, 2, 1) == expected,
                              "pos " + std::to_string(pos) + " type " + std::to_string(type) + " format " +
                                  std::to_string(format));
                        accepted += expected;
                        ++asked;
                    }
                }
            }
        }
    }
    // Per settled type: three at the first place, one at each of the others; each with three kinds of rest.
    CHECK(accepted == 3 * (3 + 1 + 1) * 3);
    CHECK(asked == 3 * 3 * EnumMax<DataType>() * EnumMax<TensorFormat>() * 3);

    DynamicPluginTensorDesc tensors[4]{};
    for (auto& one : tensors) one.desc = tensor({});
    CHECK(build(*plugin).supportsFormatCombination(0, tensors, 2, 1));
    CHECK(!build(*plugin).supportsFormatCombination(-1, tensors, 2, 1));
    CHECK(!build(*plugin).supportsFormatCombination(3, tensors, 2, 1));
    CHECK(!build(*plugin).supportsFormatCombination(0, tensors, 1, 1));
    CHECK(!build(*plugin).supportsFormatCombination(0, tensors, 3, 1));
    CHECK(!build(*plugin).supportsFormatCombination(0, tensors, 2, 2));
}

void testOutputTypes() {
    const Plugin plugin = createGood();
    for (int32_t value = 0; value < EnumMax<DataType>(); ++value) {
        for (int32_t sampling = 0; sampling < EnumMax<DataType>(); ++sampling) {
            const Log log;
            const DataType in[2] = {static_cast<DataType>(value), static_cast<DataType>(sampling)};
            DataType out = DataType::kBOOL;
            const bool isKnown = std::find(std::begin(kTypes), std::end(kTypes), in[0]) != std::end(kTypes);
            const int32_t status = build(*plugin).getOutputDataTypes(&out, 1, in, 2);
            if (isKnown && value == sampling) {
                CHECK(status == 0 && out == in[0] && log.errors().empty());
            } else {
                CHECK(status != 0 && log.isOneErrorWith({"type"}));
            }
        }
    }
    const Log log;
    const DataType in[3] = {};
    DataType out[2] = {};
    CHECK(build(*plugin).getOutputDataTypes(out, 1, in, 1) != 0);
    CHECK(build(*plugin).getOutputDataTypes(out, 1, in, 3) != 0);
    CHECK(build(*plugin).getOutputDataTypes(out, 2, in, 2) != 0);
    CHECK(log.errors().size() == 3);
}

// Asks all that know the shapes; -1 is unknown. Returns whether they all agree that the shapes are good.
bool accepts(const std::vector<int64_t>& value, const std::vector<int64_t>& sampling,
             const std::vector<std::string>& texts) {
    const Plugin plugin = createGood();
    const Dimensions valueExpr(dims(value)), samplingExpr(dims(sampling));
    const DimsExprs expressions[2] = {valueExpr.get(), samplingExpr.get()};
    DimsExprs output{};
    NoExpressions builder;
    DynamicPluginTensorDesc dynamic[2]{}, dynamicOut{};
    dynamic[0].desc = tensor(value);
    dynamic[1].desc = tensor(sampling);
    const PluginTensorDesc in[2] = {tensor(value), tensor(sampling)}, out{};

    int32_t good = 0;
    for (int32_t asked = 0; asked < 3; ++asked) {
        const Log log;
        const int32_t status = asked == 0
                                   ? build(*plugin).getOutputShapes(expressions, 2, nullptr, 0, &output, 1, builder)
                               : asked == 1 ? build(*plugin).configurePlugin(dynamic, 2, &dynamicOut, 1)
                                            : runtime(*plugin).onShapeChange(in, 2, &out, 1);
        good += status == 0;
        CHECK(status == 0 ? log.errors().empty() : log.isOneErrorWith(texts));
    }
    CHECK(good == 0 || good == 3, "all agree");
    if (good) {
        CHECK(output.nbDims == 3);
        for (int32_t i = 0; i < 3; ++i) CHECK(output.d[i] == expressions[0].d[i]);
    }
    return good == 3;
}

void testShapes() {
    // 30 tokens, 2 heads, 36 sampling values.
    CHECK(accepts({1, 30, 16}, {1, 30, 36}, {}));
    CHECK(accepts({-1, 30, 16}, {-1, 30, 36}, {}));
    CHECK(accepts({-1, 30, 2}, {5, 30, 36}, {}));
    CHECK(accepts({0, 30, 2048}, {0, 30, 36}, {}));
    CHECK(accepts({-1, -1, -1}, {-1, -1, -1}, {}));

    const std::string export_ = "export the model again";
    CHECK(!accepts({1, 30}, {1, 30, 36}, {"value: expected (batch, 30, channels)", "found (1, 30)", export_}));
    CHECK(!accepts({1, 30, 4, 4}, {1, 30, 36}, {"value", "found (1, 30, 4, 4)"}));
    CHECK(!accepts({}, {1, 30, 36}, {"value", "found ()"}));
    CHECK(!accepts({-1, 31, 16}, {-1, 30, 36}, {"value", "(batch, 30,", "found (-1, 31, 16)"}));
    CHECK(!accepts({1, 30, 17}, {1, 30, 36}, {"value", "multiple of heads = 2", "found (1, 30, 17)"}));
    CHECK(!accepts({1, 30, 0}, {1, 30, 36}, {"channels per head", "found 0"}));
    CHECK(!accepts({1, 30, 2050}, {1, 30, 36}, {"channels per head", "found 1025"}));
    CHECK(!accepts({1, 30, 16}, {1, 30}, {"sampling: expected (batch, 30, 36)", "found (1, 30)", export_}));
    CHECK(!accepts({1, 30, 16}, {1, 30, 36, 1}, {"sampling", "found (1, 30, 36, 1)"}));
    CHECK(!accepts({1, 30, 16}, {1, 29, 36}, {"sampling", "found (1, 29, 36)"}));
    CHECK(!accepts({-1, -1, -1}, {-1, 29, -1}, {"sampling", "found (-1, 29, -1)"}));
    CHECK(!accepts({1, 30, 16}, {1, 30, 24}, {"sampling", "heads 2 x levels 2 x points 3 x 3", "found (1, 30, 24)"}));
    CHECK(!accepts({1, 30, 16}, {2, 30, 36}, {"batch", "(1, 30, 16)", "(2, 30, 36)"}));
}

void testCounts() {
    const Log log;
    const Plugin plugin = createGood();
    NoExpressions builder;
    const Dimensions one(dims({1, 30, 16})), two(dims({1, 30, 36}));
    const DimsExprs expressions[3] = {one.get(), two.get(), two.get()};
    DimsExprs outputs[2] = {};
    DynamicPluginTensorDesc dynamic[3]{};
    PluginTensorDesc in[3]{};
    const int32_t counts[][2] = {{1, 1}, {3, 1}, {2, 0}, {2, 2}};
    for (const auto& [inputs, results] : counts) {
        CHECK(build(*plugin).getOutputShapes(expressions, inputs, nullptr, 0, outputs, results, builder) != 0);
        CHECK(build(*plugin).configurePlugin(dynamic, inputs, dynamic, results) != 0);
        CHECK(runtime(*plugin).onShapeChange(in, inputs, in, results) != 0);
    }
    CHECK(log.errors().size() == 12);
    CHECK(log.errors().back().find("value and sampling and one output, found 2 inputs and 2 outputs") !=
          std::string::npos);
}

}  // namespace

void testBuild() {
    testFormats();
    testOutputTypes();
    testShapes();
    testCounts();
    const Plugin plugin = createGood();
    CHECK(build(*plugin).getNbOutputs() == 1);
    CHECK(build(*plugin).getWorkspaceSize(nullptr, 2, nullptr, 1) == 0);
}
