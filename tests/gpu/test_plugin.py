"""The TensorRT plugin on device memory, without TensorRT: driven by a C++ library as a builder and a context would."""

import ctypes
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from proscale_deploy.core import machine
from proscale_deploy.core.native import DType, Library
from proscale_deploy.core.operator import Attributes
from support.device_runs import TORCH_TYPES, Tensors, run

ROOT = Path(__file__).parents[2]
TENSORRT_TYPES = {DType.FLOAT: 0, DType.HALF: 1, DType.BFLOAT16: 7}
"""nvinfer1::DataType."""
LEVELS = ((7, 11), (13, 21), (25, 42))


@pytest.fixture(scope="module")
def plugin_call(library_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., int]:
    """plugin_call.cpp, compiled, with what the tests without a GPU use for TensorRT's side."""
    if not hasattr(ctypes.CDLL(str(library_path)), "getCreators"):
        pytest.skip(f"needs a {library_path.name} with the plugin in it: it was built without TensorRT's headers")
    headers, nvcc = machine.tensorrt_headers(), machine.cuda_compiler()
    if headers is None:
        pytest.skip("needs TensorRT's headers: apt install libnvinfer-headers-dev, or set TENSORRT_ROOT")
    if nvcc is None:
        pytest.skip("needs nvcc: CUDA toolkit 12.6 or newer")
    fakes = ROOT / "tests" / "plugins" / "tensorrt"
    built, library = tmp_path_factory.mktemp("plugin") / "libplugin_call.so", library_path.resolve()
    subprocess.run(
        [
            # The only CUDA runtime is the one inside the library.
            *(nvcc.path, "-std=c++17", "--shared", "--cudart=none", "-Xcompiler=-fPIC,-Wall,-Wextra"),
            *("-I", ROOT / "plugins" / "include", "-I", ROOT / "plugins" / "src", "-I", fakes),
            *("-isystem", headers.path),
            *(Path(__file__).with_name("plugin_call.cpp"), fakes / "fakes.cpp", "-o", built),
            *("-L", library.parent, f"-l:{library.name}", "-Xlinker", f"-rpath={library.parent}"),
        ],
        check=True,
    )
    return ctypes.CDLL(str(built)).plugin_call


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("dtype", DType, ids=lambda dtype: dtype.name)
def test_from_the_attributes_to_the_output(
    plugin_call: Callable[..., int], library: Library, device: torch.device, dtype: DType, batch: int
) -> None:
    """The same bits as from the C function; the numbers themselves are checked in test_kernels.py."""
    attributes = Attributes(8, 4, LEVELS)
    shapes = (batch, attributes.tokens, 256), (batch, attributes.tokens, 3 * attributes.samples)
    value, sampling = (torch.randn(shape, device=device).to(TORCH_TYPES[dtype]) for shape in shapes)
    output = torch.full_like(value, torch.nan)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    sizes = [size for level in LEVELS for size in level]
    failed = plugin_call(
        *(ctypes.c_int64(attributes.heads), ctypes.c_int64(attributes.points)),
        *((ctypes.c_int32 * len(sizes))(*sizes), len(sizes), TENSORRT_TYPES[dtype]),
        *(ctypes.c_int64(size) for size in (*shapes[0], shapes[1][-1])),
        *(ctypes.c_void_p(tensor.data_ptr()) for tensor in (value, sampling, output)),
        ctypes.c_void_p(stream.cuda_stream),
    )
    stream.synchronize()
    assert failed == 0
    expected = run(library, Tensors(attributes, value, sampling))
    assert bool(expected.isfinite().all())
    assert torch.equal(output, expected)
