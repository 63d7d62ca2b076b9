// TensorRT's side of the plugin, and the launcher's, as far as the tests need them.
#pragma once

#include <NvInferRuntime.h>

#include <deque>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "deform_attn_plugin.h"
#include "proscale/c_api.h"

extern "C" {
void setLoggerFinder(nvinfer1::ILoggerFinder* finder);
nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& nbCreators);
}

// Counts what was checked; a failed check is printed with its line.
struct Checks {
    static int done, failed;
    static void that(bool holds, const std::string& what, int line) {
        ++done;
        if (holds) return;
        ++failed;
        std::cout << "line " << line << ": " << what << "\n";
    }
};
#define CHECK(condition, ...) \
    Checks::that((condition), std::string(#condition " ") + std::string(__VA_ARGS__), __LINE__)

// Holds TensorRT's logger while it lives: what the plugin said since it was made.
class Log {
public:
    Log();
    ~Log();
    std::vector<std::string> errors() const;
    // Whether there is just one error, and it holds all these texts.
    bool isOneErrorWith(const std::vector<std::string>& texts) const;
};

// What the plugin asked the launcher to do.
struct Launch {
    proscale::Geometry geometry;
    ProscaleType type;
    int32_t batch;
    const void *value, *sampling;
    void* output;
    ProscaleKernel kernel;
    cudaStream_t stream;
};
std::vector<Launch> takeLaunches();
// What the launcher returns to this thread.
extern thread_local cudaError_t launchResult;

// Symbolic dimensions, as the builder gives them; -1 is unknown.
class Dimensions {
public:
    explicit Dimensions(const nvinfer1::Dims& dims);
    const nvinfer1::DimsExprs& get() const { return mDims; }

private:
    std::deque<std::shared_ptr<void>> mKept;
    nvinfer1::DimsExprs mDims{};
};

// The plugin never asks it to build an expression.
struct NoExpressions : nvinfer1::IExprBuilder {};

using Fields = std::vector<nvinfer1::PluginField>;
using Plugin = std::unique_ptr<nvinfer1::IPluginV3>;

nvinfer1::IPluginCreatorV3One& creator();
Plugin create(const Fields& fields, nvinfer1::TensorRTPhase phase = nvinfer1::TensorRTPhase::kBUILD);
// 2 heads, 3 points, levels 4x6 and 2x3: 30 tokens, 36 sampling values per token.
Plugin createGood();

inline nvinfer1::IPluginV3OneBuild& build(nvinfer1::IPluginV3& plugin) {
    return *static_cast<nvinfer1::IPluginV3OneBuild*>(
        plugin.getCapabilityInterface(nvinfer1::PluginCapabilityType::kBUILD));
}
inline nvinfer1::IPluginV3OneRuntime& runtime(nvinfer1::IPluginV3& plugin) {
    return *static_cast<nvinfer1::IPluginV3OneRuntime*>(
        plugin.getCapabilityInterface(nvinfer1::PluginCapabilityType::kRUNTIME));
}

nvinfer1::Dims dims(const std::vector<int64_t>& sizes);
nvinfer1::PluginTensorDesc tensor(const std::vector<int64_t>& sizes,
                                  nvinfer1::DataType type = nvinfer1::DataType::kFLOAT);

void testCreator();
void testBuild();
void testRuntime();
