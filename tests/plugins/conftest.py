"""The compiled libraries, built with plugins/CMakeLists.txt into build/plugins-test and kept there."""

import fcntl
import subprocess
from pathlib import Path
from typing import Protocol

import pytest

from proscale_deploy.core import machine
from proscale_deploy.core.gpu import default_gpu
from support.sanitized import find_runtime

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "build" / "plugins-test"


class BuildLibrary(Protocol):
    def __call__(self, name: str, target: str, *options: str) -> Path: ...


@pytest.fixture(scope="session")
def build_library() -> BuildLibrary:
    """Builds one target in a folder of its own: ``build_library("sanitized", "proscale_host", "-D...")``."""
    cmake = machine.cmake()
    if cmake is None:
        pytest.skip("needs cmake: pip install cmake")
    if machine.cxx_compiler() is None:
        pytest.skip("needs a C++ compiler: apt install g++")

    def build(name: str, target: str, *options: str) -> Path:
        folder = FOLDER / name
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            strict = "-DCMAKE_COMPILE_WARNING_AS_ERROR=ON"  # CMake before 3.24 takes no notice
            _run(str(cmake.path), "-S", str(ROOT / "plugins"), "-B", str(folder), strict, *options)
            _run(str(cmake.path), "--build", str(folder), "--target", target, "--parallel", str(machine.cpus()))
        return folder / f"lib{target}.so"

    return build


def _run(*command: str) -> None:
    run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if run.returncode:
        pytest.fail(f"{' '.join(command)}\n{run.stdout}", pytrace=False)


@pytest.fixture(scope="session")
def host_library(build_library: BuildLibrary) -> Path:
    """libproscale_host.so, portable as it is shipped."""
    return build_library("host", "proscale_host", "-DPROSCALE_CUDA=OFF")


@pytest.fixture(scope="session")
def sanitized_library(build_library: BuildLibrary) -> Path:
    """libproscale_host.so that reports what AddressSanitizer and UndefinedBehaviorSanitizer find."""
    find_runtime()
    return build_library("sanitized", "proscale_host", "-DPROSCALE_CUDA=OFF", "-DPROSCALE_SANITIZE=address,undefined")


@pytest.fixture(scope="session")
def plugin_library(build_library: BuildLibrary) -> Path:
    """libproscale_plugin.so for one architecture: this machine's GPU, or the H200's where there is none."""
    if machine.cuda_compiler() is None:
        pytest.skip("needs nvcc: CUDA toolkit 12.6 or newer")
    headers = machine.tensorrt_headers()
    if headers is None:
        pytest.skip("needs TensorRT's headers: apt install libnvinfer-headers-dev, or set TENSORRT_ROOT")
    gpu = default_gpu()
    architecture = gpu.capability.replace(".", "") if gpu else "90"
    options = (f"-DCMAKE_CUDA_ARCHITECTURES={architecture}", f"-DTENSORRT_ROOT={headers.path}")
    return build_library("plugin", "proscale_plugin", *options)
