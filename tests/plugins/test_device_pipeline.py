"""Frames and masks on a GPU that is not there, with the kernels' twins on the CPU: all but CUDA is the real thing."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from proscale_deploy.core.types import Instances, Panoptic, Semantic, Task, Thresholds
from proscale_deploy.runtime import device_pipeline
from proscale_deploy.runtime.host_pipeline import HostPipeline
from proscale_deploy.runtime.segmenter import Segmenter
from support.color_model import picture, write_color_model, write_half_model
from support.engine_checks import check_result, noise, on_cpu
from support.fake_gpu import FakeGpu
from support.queued_library import QueuedLibrary

TASKS: tuple[Task, ...] = ("panoptic", "instance", "semantic")
SEMANTIC_ONLY = Thresholds(tasks=("semantic",), resize_masks_first=False)


@pytest.fixture
def fake(host_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeGpu:
    fake = FakeGpu(tmp_path, monkeypatch)
    monkeypatch.setattr(device_pipeline, "Library", QueuedLibrary)
    library = tmp_path / "libproscale_plugin.so"
    library.symlink_to(host_library)
    monkeypatch.setenv("PROSCALE_PLUGIN", str(library))
    return fake


def test_a_library_for_other_gpus_is_not_used(fake: FakeGpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(QueuedLibrary, "function", lambda *given: lambda *arguments: 209)
    monkeypatch.setattr(QueuedLibrary, "__init__", lambda self, path: setattr(self, "path", path))
    with Segmenter.open(fake.engine(write_color_model(tmp_path / "m.onnx"))) as segmenter:
        assert "frames and masks on the CPU" in segmenter.name
        assert "CUDA error 209 when launching count_nonfinite" in segmenter.name
        for seed in range(2):
            segmenter.submit([noise(seed=seed)])
        for seed in range(2):
            check_result(segmenter.collect()[0][0], on_cpu(noise(seed=seed), "panoptic"))
    assert not fake.driver.LIVE


@pytest.mark.parametrize("task", TASKS)
def test_results_are_those_of_the_cpu(fake: FakeGpu, tmp_path: Path, task: Task) -> None:
    """Frame by frame, and in a batch, of several sizes."""
    frames = [picture(), picture(64, 96), noise(), noise(31, 500), picture(480, 640), noise(200, 33)]
    with Segmenter.open(fake.engine(write_color_model(tmp_path / "m.onnx"))) as segmenter:
        assert segmenter.name.endswith("frames and masks on the GPU")
        for found, frame in zip(segmenter.batch(frames, task), frames, strict=True):
            check_result(found, on_cpu(frame, task))
            check_result(segmenter(frame, task), on_cpu(frame, task))
    assert not fake.driver.LIVE


def test_scores_resized_instead_of_masks(fake: FakeGpu, tmp_path: Path) -> None:
    with Segmenter.open(fake.engine(write_color_model(tmp_path / "m.onnx")), SEMANTIC_ONLY) as segmenter:
        check_result(segmenter(noise()), on_cpu(noise(), "semantic", SEMANTIC_ONLY))


@pytest.mark.parametrize("task", TASKS)
def test_fp16_inputs_and_outputs(fake: FakeGpu, tmp_path: Path, task: Task) -> None:
    """The same engine with frames and masks on the CPU is the truth: its logits are those of FP16."""
    engine = fake.engine(write_half_model(tmp_path / "m.onnx"))
    with Segmenter.open(engine) as segmenter:
        found: Any = segmenter(noise(), task)
        truth = HostPipeline(segmenter.session, segmenter.thresholds)
        truth.submit([noise()], task)
        check_result(found, truth.collect()[0][0])
    assert isinstance(found, {"panoptic": Panoptic, "instance": Instances, "semantic": Semantic}[task])
    assert np.isfinite(np.asarray(getattr(found, "scores", 0.0))).all()
