"""Frames and masks on a GPU that is not there, with the kernels' twins on the CPU: all but CUDA is the real thing."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from proscale_deploy.core.types import Instances, Panoptic, Semantic, Task, Thresholds
from proscale_deploy.runtime import segmenter as segmenter_module
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
    monkeypatch.setattr(segmenter_module, "find_kernels", lambda: QueuedLibrary(host_library))
    return fake


@pytest.mark.parametrize("task", TASKS)
def test_results_are_those_of_the_cpu(fake: FakeGpu, tmp_path: Path, task: Task) -> None:
    """Frame by frame, and in a batch, of several sizes."""
    frames = [picture(), picture(64, 96), noise(), noise(31, 500), picture(480, 640), noise(200, 33)]
    with Segmenter.open(fake.engine(write_color_model(tmp_path / "m.onnx"))) as segmenter:
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
        truth = segmenter_module.HostPipeline(segmenter.session, segmenter.thresholds)
        truth.submit([noise()], task)
        check_result(found, truth.collect()[0][0])
    assert isinstance(found, {"panoptic": Panoptic, "instance": Instances, "semantic": Semantic}[task])
    assert np.isfinite(np.asarray(getattr(found, "scores", 0.0))).all()
