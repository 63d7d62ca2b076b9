// Drives the plugin as TensorRT would, without TensorRT and without a GPU.
#include "fakes.h"

int main() {
    testCreator();
    testBuild();
    testRuntime();
    std::cout << "TensorRT " << NV_TENSORRT_MAJOR << "." << NV_TENSORRT_MINOR << ": " << Checks::done << " checks, "
              << Checks::failed << " failed\n";
    return Checks::failed == 0 ? 0 : 1;
}
