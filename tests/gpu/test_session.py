"""Engines built and run here, against ONNX Runtime on the CPU. The way there without a GPU: tests/runtime."""

import dataclasses
import importlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from proscale_deploy.core import plugin_library
from proscale_deploy.core.errors import BuildError, DeviceError, EngineMismatch, PluginError
from proscale_deploy.core.gpu import default_gpu
from proscale_deploy.core.sidecar import BackendName, file_sha256, read_sidecar, write_sidecar
from proscale_deploy.export.engine import BuildOptions, build_engine
from proscale_deploy.runtime.cuda import Device
from proscale_deploy.runtime.session import Session, open_session
from support.color_model import HEIGHT, WIDTH, write_attending_model, write_color_model, write_half_model

CYCLES = 200


@pytest.fixture(scope="module", params=get_args(BackendName))
def backend(request: pytest.FixtureRequest) -> Any:
    if default_gpu() is None:
        pytest.skip("needs a CUDA GPU")
    name = request.param
    for module, extra in ((name.replace("-", "_"), name), ("pycuda.driver", "tensorrt")):
        try:
            importlib.import_module(module)
        except ImportError as error:
            pytest.skip(f"needs {module} ({error}): pip install 'proscale-deploy[{extra.removeprefix('tensorrt-')}]'")
    return name


Build = Callable[..., Path]


@pytest.fixture
def build(backend: BackendName, tmp_path: Path) -> Build:
    """Writes and builds a model; ``plugin``: with the plugin where the backend has one."""

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


@pytest.fixture
def opened() -> Iterator[Callable[[Path], Session]]:
    with ExitStack() as stack:
        yield lambda path: stack.enter_context(open_session(path))


def images(batch: int = 1, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).uniform(0, 255, (batch, 3, HEIGHT, WIDTH)).astype(np.float32)


def check(found: Session, truth: Session, given: NDArray[np.float32], tolerance: float) -> None:
    for output, expected in zip(found.run(given), truth.run(given), strict=True):
        np.testing.assert_allclose(output.class_logits, expected.class_logits, rtol=tolerance, atol=tolerance)
        np.testing.assert_allclose(output.mask_logits, expected.mask_logits, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    ("write", "tolerance"), [(write_color_model, 1e-3), (write_half_model, 0.1), (write_attending_model, 1e-3)]
)
def test_numbers(
    build: Build, opened: Callable[[Path], Session], write: Callable[[Path], Path], tolerance: float
) -> None:
    """Of batches in the profile, and beyond it; the plugin runs the operator where there is one."""
    engine = build(write, plugin=write is write_attending_model)
    session, truth = opened(engine), opened(engine.with_suffix(".onnx"))
    for seed, batch in enumerate((1, 4, 2, 9)):
        check(session, truth, images(batch, seed), tolerance)


def test_two_sessions_and_torch_in_one_process(
    build: Build, opened: Callable[[Path], Session], device: torch.device
) -> None:
    engine = build(write_color_model)
    tensor = torch.arange(1000.0, device=device)
    first, second, truth = opened(engine), opened(engine), opened(engine.with_suffix(".onnx"))
    for seed in range(3):
        tensor = tensor + 1
        check(first, truth, images(2, seed), 1e-3)
        check(second, truth, images(3, seed), 1e-3)
    first.close()
    check(second, truth, images(), 1e-3)
    second.close()
    assert torch.equal((tensor * 2).cpu(), (torch.arange(1000.0) + 3) * 2)


def test_opening_and_closing_leaks_nothing(build: Build) -> None:
    engine = build(write_color_model)
    device = Device("tensorrt")
    import pycuda.driver

    free = []
    for cycle in range(CYCLES):
        with open_session(engine) as session:
            session.run(images(4))
        if cycle in (CYCLES // 10, CYCLES - 1):  # the first ones load libraries and kernels
            with device.current("counting"):
                free.append(pycuda.driver.mem_get_info()[0])
    assert free[0] - free[1] < 4 << 20


def test_engines_that_do_not_fit_fail_in_words(build: Build) -> None:
    """What the checks cannot see is TensorRT's to refuse."""
    engine = build(write_color_model)
    sidecar = read_sidecar(engine)
    write_sidecar(engine, dataclasses.replace(sidecar, backend_version="1.0"))
    with pytest.raises(EngineMismatch, match=r"1\.0, installed is"):
        open_session(engine)
    content = bytearray(engine.read_bytes())
    content[:64] = bytes(64)  # of the header
    engine.write_bytes(content)
    write_sidecar(engine, dataclasses.replace(sidecar, engine_sha256=file_sha256(engine)))
    with pytest.raises(DeviceError, match="failed while opening"):
        open_session(engine)
