#include "fakes.h"

#include <algorithm>
#include <mutex>

#include "launch.h"

using namespace nvinfer1;

int Checks::done = 0;
int Checks::failed = 0;

namespace {

std::mutex mutex;
std::vector<std::string> messages;
std::vector<Launch> launches;

struct Logger : ILogger {
    void log(Severity severity, const char* message) noexcept override {
        const std::lock_guard<std::mutex> lock(mutex);
        if (severity == Severity::kERROR) messages.emplace_back(message);
    }
};

struct Finder : ILoggerFinder {
    ILogger* findLogger() override { return &logger; }
    Logger logger;
};

Finder finder;

struct Value : apiv::VDimensionExpr {
    explicit Value(int64_t size) : size(size) {}
    bool isConstant() const override { return size != -1; }
    int64_t getConstantValue() const override { return size; }
    bool isSizeTensor() const override { return false; }
    const int64_t size;
};

struct Expression : IDimensionExpr {
    explicit Expression(int64_t size) : value(size) { mImpl = &value; }
    Value value;
};

}  // namespace

Log::Log() {
    const std::lock_guard<std::mutex> lock(mutex);
    messages.clear();
    setLoggerFinder(&finder);
}

Log::~Log() { setLoggerFinder(nullptr); }

std::vector<std::string> Log::errors() const {
    const std::lock_guard<std::mutex> lock(mutex);
    return messages;
}

bool Log::isOneErrorWith(const std::vector<std::string>& texts) const {
    const std::vector<std::string> found = errors();
    const bool holds = found.size() == 1 && std::all_of(texts.begin(), texts.end(), [&](const std::string& text) {
                           return found[0].find(text) != std::string::npos;
                       });
    if (!holds) {
        std::cout << found.size() << " errors\n";
        for (const std::string& error : found) std::cout << "    " << error << "\n";
        for (const std::string& text : texts) std::cout << "    expected: " << text << "\n";
    }
    return holds;
}

thread_local cudaError_t launchResult = cudaSuccess;

cudaError_t proscale::deformAttn(const Geometry& geometry, ProscaleType type, int32_t batch, const void* value,
                                 const void* sampling, void* output, ProscaleKernel kernel,
                                 cudaStream_t stream) noexcept {
    const std::lock_guard<std::mutex> lock(mutex);
    launches.push_back({geometry, type, batch, value, sampling, output, kernel, stream});
    return launchResult;
}

extern "C" const char* cudaGetErrorName(cudaError_t error) {
    return error == cudaErrorInvalidValue ? "cudaErrorInvalidValue" : "another error";
}
extern "C" const char* cudaGetErrorString(cudaError_t error) {
    return error == cudaErrorInvalidValue ? "invalid argument" : "something else";
}

std::vector<Launch> takeLaunches() {
    const std::lock_guard<std::mutex> lock(mutex);
    std::vector<Launch> taken;
    taken.swap(launches);
    return taken;
}

Dimensions::Dimensions(const Dims& dims) {
    mDims.nbDims = dims.nbDims;
    for (int32_t i = 0; i < dims.nbDims; ++i) {
        const auto expression = std::make_shared<Expression>(dims.d[i]);
        mDims.d[i] = expression.get();
        mKept.push_back(expression);
    }
}

IPluginCreatorV3One& creator() {
    int32_t count = 0;
    return *static_cast<IPluginCreatorV3One*>(getCreators(count)[0]);
}

Plugin create(const Fields& fields, TensorRTPhase phase) {
    PluginFieldCollection collection;
    collection.nbFields = static_cast<int32_t>(fields.size());
    collection.fields = fields.data();
    return Plugin(creator().createPlugin("a node", &collection, phase));
}

Plugin createGood() {
    static const int32_t heads = 2, points = 3, levels[] = {4, 6, 2, 3};
    return create({{"heads", &heads, PluginFieldType::kINT32, 1},
                   {"points", &points, PluginFieldType::kINT32, 1},
                   {"levels", levels, PluginFieldType::kINT32, 4}});
}

Dims dims(const std::vector<int64_t>& sizes) {
    Dims result{};
    result.nbDims = static_cast<int32_t>(sizes.size());
    std::copy(sizes.begin(), sizes.end(), result.d);
    return result;
}

PluginTensorDesc tensor(const std::vector<int64_t>& sizes, DataType type) {
    PluginTensorDesc desc{};
    desc.dims = dims(sizes);
    desc.type = type;
    desc.format = TensorFormat::kLINEAR;
    return desc;
}
