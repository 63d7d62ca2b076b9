"""Frames and masks on a GPU that is not there: all but CUDA and TensorRT is the real thing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from proscale_deploy.core.types import Instances, Panoptic, Semantic, Task, Thresholds
from proscale_deploy.runtime.compiled import mask_kernels
from proscale_deploy.runtime.gpu import device_pipeline
from proscale_deploy.runtime.host_pipeline import HostPipeline
from proscale_deploy.runtime.segmenter import Segmenter
from support.color_model import picture, write_color_model, write_half_model
from support.emulator import program
from support.engine_checks import check_result, noise, on_cpu
from support.fake_gpu import FakeGpu
from support.queued_library import EmulatedLibrary, QueuedLibrary

TASKS: tuple[Task, ...] = ("panoptic", "instance", "semantic")
SEMANTIC_ONLY = Thresholds(tasks=("semantic",), resize_masks_first=False)


@pytest.fixture(params=[QueuedLibrary, EmulatedLibrary])
def kernels(request: pytest.FixtureRequest) -> type[QueuedLibrary]:
    """The kernels' twins on the CPU, and the kernels themselves, emulated."""
    kernels: type[QueuedLibrary] = request.param
    return kernels


@pytest.fixture
def share(kernels: type[QueuedLibrary]) -> float:
    """Of the pixels that may differ: the exponential function of the emulated device is another one."""
    return 1e-3 if kernels is EmulatedLibrary else 0


@pytest.fixture
def fake(
    kernels: type[QueuedLibrary], request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> FakeGpu:
    found = program("loaded") if kernels is EmulatedLibrary else request.getfixturevalue("host_library")
    library = tmp_path / "libproscale_plugin.so"
    library.symlink_to(found)
    monkeypatch.setenv("PROSCALE_PLUGIN", str(library))
    monkeypatch.setattr(device_pipeline, "Library", kernels)
    return FakeGpu(tmp_path, monkeypatch)


@pytest.mark.parametrize("task", TASKS)
def test_results_are_those_of_the_cpu(
    fake: FakeGpu, kernels: type[QueuedLibrary], share: float, tmp_path: Path, task: Task
) -> None:
    """Frame by frame, and in batches, of several sizes."""
    frames = [picture(64, 96), noise(), noise(31, 50)]
    if kernels is QueuedLibrary:  # the emulator is slow
        frames += [picture(), noise(31, 500), picture(480, 640), noise(200, 33)]
    with Segmenter.open(fake.engine(write_color_model(tmp_path / "m.onnx"))) as segmenter:
        assert segmenter.name.endswith("frames and masks on the GPU")
        expected = [on_cpu(frame, task) for frame in frames]
        for found, other in zip(segmenter.batch(frames, task), expected, strict=True):
            check_result(found, other, share=share)
        check_result(segmenter(frames[1], task), expected[1], share=share)
    assert not fake.driver.LIVE


def test_scores_resized_instead_of_masks(fake: FakeGpu, tmp_path: Path) -> None:
    with Segmenter.open(fake.engine(write_color_model(tmp_path / "m.onnx")), SEMANTIC_ONLY) as segmenter:
        check_result(segmenter(noise()), on_cpu(noise(), "semantic", SEMANTIC_ONLY))


@pytest.mark.parametrize("task", TASKS)
def test_fp16_inputs_and_outputs(fake: FakeGpu, share: float, tmp_path: Path, task: Task) -> None:
    """The same engine with frames and masks on the CPU is the truth: its logits are those of FP16."""
    engine = fake.engine(write_half_model(tmp_path / "m.onnx"))
    with Segmenter.open(engine) as segmenter:
        found: Any = segmenter(noise(), task)
        truth = HostPipeline(segmenter.session, segmenter.thresholds)
        truth.submit([noise()], task)
        check_result(found, truth.collect()[0][0], share=share)
    assert isinstance(found, {"panoptic": Panoptic, "instance": Instances, "semantic": Semantic}[task])
    assert np.isfinite(np.asarray(getattr(found, "scores", 0.0))).all()


@pytest.mark.parametrize("task", TASKS)
def test_what_is_too_much_for_the_kernels_is_done_on_the_cpu(
    fake: FakeGpu, tmp_path: Path, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mask_kernels, "MOST_CLASSES", 2)
    with Segmenter.open(fake.engine(write_color_model(tmp_path / "m.onnx"))) as segmenter:
        assert "frames and masks on the CPU (too many for the kernels: " in segmenter.name
        check_result(segmenter(noise(), task), on_cpu(noise(), task))
    assert not fake.driver.LIVE


def test_a_library_for_other_gpus_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says so when it is tried: cudaErrorNoKernelImageForDevice."""

    class OtherLibrary:
        def __init__(self, path: Path) -> None:
            self.path = path

        def function(self, name: str, arguments: list[Any]) -> Callable[..., int]:
            return lambda *given: 209

    (tmp_path / "libproscale_plugin.so").touch()
    monkeypatch.setenv("PROSCALE_PLUGIN", str(tmp_path))
    monkeypatch.setattr(device_pipeline, "Library", OtherLibrary)
    fake = FakeGpu(tmp_path, monkeypatch)
    with Segmenter.open(fake.engine(write_color_model(tmp_path / "m.onnx"))) as segmenter:
        assert "frames and masks on the CPU" in segmenter.name
        assert "CUDA error 209 when launching count_nonfinite" in segmenter.name
        for seed in range(2):
            segmenter.submit([noise(seed=seed)])
        for seed in range(2):
            check_result(segmenter.collect()[0][0], on_cpu(noise(seed=seed), "panoptic"))
    assert not fake.driver.LIVE
