// What a context asks: enqueue, from one thread and from many.
#include <cstdint>
#include <thread>

#include "fakes.h"

using namespace nvinfer1;

namespace {

void* address(uintptr_t number) { return reinterpret_cast<void*>(number << 8); }

// One call as TensorRT makes it, with pointers and a stream that belong to `number`.
int32_t enqueue(IPluginV3& plugin, int64_t batch, int64_t channels, DataType type, uintptr_t number) {
    const PluginTensorDesc in[2] = {tensor({batch, 30, channels}, type), tensor({batch, 30, 36}, type)};
    const PluginTensorDesc out = in[0];
    const void* const inputs[2] = {address(3 * number), address(3 * number + 1)};
    void* const outputs[1] = {address(3 * number + 2)};
    return runtime(plugin).onShapeChange(in, 2, &out, 1) +
           runtime(plugin).enqueue(in, &out, inputs, outputs, nullptr, static_cast<cudaStream_t>(address(number)));
}

uintptr_t numberOf(const Launch& launch) { return reinterpret_cast<uintptr_t>(launch.stream) >> 8; }

bool isLaunch(const Launch& launch, int32_t batch, int32_t headDim, ProscaleType type) {
    const uintptr_t number = numberOf(launch);
    const proscale::Geometry& geometry = launch.geometry;
    return launch.batch == batch && launch.type == type && launch.kernel == PROSCALE_AUTO &&
           launch.value == address(3 * number) && launch.sampling == address(3 * number + 1) &&
           launch.output == address(3 * number + 2) && geometry.heads == 2 && geometry.points == 3 &&
           geometry.levels == 2 && geometry.tokens == 30 && geometry.headDim == headDim &&
           geometry.level[0].height == 4 && geometry.level[0].width == 6 && geometry.level[1].first == 24 &&
           geometry.scale[0][1].x == .5f && geometry.scale[1][0].y == 2.f;
}

void testLaunch() {
    const Log log;
    const Plugin plugin = createGood();
    takeLaunches();
    CHECK(enqueue(*plugin, 3, 16, DataType::kFLOAT, 1) == 0);
    CHECK(enqueue(*plugin, 1, 64, DataType::kHALF, 2) == 0);
    CHECK(enqueue(*plugin, 2, 2, DataType::kBF16, 3) == 0);
    const std::vector<Launch> launches = takeLaunches();
    CHECK(launches.size() == 3 && isLaunch(launches[0], 3, 8, PROSCALE_FLOAT) &&
          isLaunch(launches[1], 1, 32, PROSCALE_HALF) && isLaunch(launches[2], 2, 1, PROSCALE_BFLOAT16));

    CHECK(enqueue(*plugin, 0, 16, DataType::kFLOAT, 4) == 0, "an empty batch");
    CHECK(takeLaunches().empty());
    CHECK(log.errors().empty());
}

void testFailure() {
    const Plugin plugin = createGood();
    {
        const Log log;
        launchResult = cudaErrorInvalidValue;
        CHECK(enqueue(*plugin, 1, 16, DataType::kFLOAT, 1) != 0);
        CHECK(log.isOneErrorWith({"cudaErrorInvalidValue", "invalid argument"}));
        launchResult = cudaSuccess;
    }
    takeLaunches();
    const Log log;
    CHECK(enqueue(*plugin, 1, 16, DataType::kINT8, 1) != 0, "a type that was never offered");
    CHECK(log.isOneErrorWith({"FP32, FP16 or BF16"}));
    CHECK(takeLaunches().empty());
}

// Every thread has its context's plugin, its own sizes, and one in three has a launcher that fails.
void testThreads() {
    const Log log;
    Plugin plugin = createGood();
    takeLaunches();
    constexpr int kThreads = 6, kCalls = 50;
    std::vector<Plugin> attached;
    for (int t = 0; t < kThreads; ++t) attached.emplace_back(runtime(*plugin).attachToContext(nullptr));
    plugin.reset();

    int wrong[kThreads] = {};
    std::vector<std::thread> threads;
    for (int t = 0; t < kThreads; ++t) {
        threads.emplace_back([&, t] {
            launchResult = t % 3 == 2 ? cudaErrorInvalidValue : cudaSuccess;
            for (int call = 0; call < kCalls; ++call) {
                const Plugin copy(attached[t]->clone());
                IPluginV3& mine = call % 2 ? *copy : *attached[t];
                const int32_t status = enqueue(mine, t + 1 + call % 2, 2 * (t + 1), DataType::kHALF, t);
                wrong[t] += (status != 0) != (t % 3 == 2);
            }
        });
    }
    for (std::thread& thread : threads) thread.join();

    int seen[kThreads] = {};
    for (const Launch& launch : takeLaunches()) {
        const auto t = static_cast<int32_t>(numberOf(launch));
        CHECK(t < kThreads && isLaunch(launch, t + 1 + seen[t] % 2, t + 1, PROSCALE_HALF));
        ++seen[t];
    }
    for (int t = 0; t < kThreads; ++t) CHECK(seen[t] == kCalls && wrong[t] == 0);
    CHECK(log.errors().size() == kThreads / 3 * kCalls);
}

}  // namespace

void testRuntime() {
    testLaunch();
    testFailure();
    testThreads();
}
