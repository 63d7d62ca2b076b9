"""What the tests of this folder need: a CUDA GPU and the compiled library. README.md says how to run them all."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from proscale_deploy.core import plugin_library
from proscale_deploy.core.errors import BuildError, PluginError
from proscale_deploy.core.gpu import default_gpu
from proscale_deploy.core.native import Library
from proscale_deploy.core.sidecar import BackendName
from proscale_deploy.export.engine import BuildOptions, build_engine


@pytest.fixture(scope="session")
def device() -> torch.device:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA GPU, and a PyTorch built for CUDA")
    return torch.device("cuda")


@pytest.fixture(scope="session")
def library_path(device: torch.device) -> Path:
    found = plugin_library.plugins()
    if not found:
        pytest.skip(
            f"needs {plugin_library.PLUGIN}: proscale-deploy plugin build, or its place as {plugin_library.OVERRIDE}"
        )
    return found[-1]


@pytest.fixture(scope="session")
def library(library_path: Path) -> Library:
    return Library(library_path)


@pytest.fixture(scope="module", params=get_args(BackendName))
def backend(request: pytest.FixtureRequest) -> Any:
    """TensorRT and TensorRT-RTX, those that are here."""
    if default_gpu() is None:
        pytest.skip("needs a CUDA GPU")
    name = request.param
    for module, extra in ((name.replace("-", "_"), name), ("pycuda.driver", "tensorrt")):
        try:
            importlib.import_module(module)
        except ImportError as error:
            pytest.skip(f"needs {module} ({error}): pip install 'proscale-deploy[{extra.removeprefix('tensorrt-')}]'")
    return name


@pytest.fixture
def build(backend: BackendName, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Writes and builds a model; ``plugin``: with the plugin where the backend has one. Caches are the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def make(write: Callable[[Path], Path], *, plugin: bool = False) -> Path:
        gpu = default_gpu()
        assert gpu is not None
        targets = (gpu.capability,) if backend == "tensorrt-rtx" else ()
        engine = tmp_path / "m.engine"
        options = BuildOptions(backend, (1, 2, 4), plugin=plugin and not targets, targets=targets)
        try:
            build_engine(write(tmp_path / "m.onnx"), engine, options, lambda doing: None)
        except BuildError as error:
            if "has no target" in str(error):
                pytest.skip(f"needs a GPU for which {backend} builds: {error}")
            raise
        except PluginError as error:
            pytest.skip(f"needs {plugin_library.PLUGIN} for this TensorRT: {error}")
        return engine

    return make
