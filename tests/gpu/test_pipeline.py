"""Frames and masks on the GPU, against the CPU around the same network. The way there without a GPU: tests/plugins."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from proscale_deploy.core.types import Panoptic, Result, Task, Thresholds
from proscale_deploy.runtime.bench import bench
from proscale_deploy.runtime.host_pipeline import HostPipeline
from proscale_deploy.runtime.segmenter import Segmenter
from support.color_model import picture, write_color_model, write_half_model
from support.engine_checks import check_result, noise

TASKS: tuple[Task, ...] = ("panoptic", "instance", "semantic")
SEMANTIC_ONLY = Thresholds(tasks=("semantic",), resize_masks_first=False)
FRAMES = [picture(), picture(64, 96), noise(480, 640), noise(31, 500), picture(1080, 1920, 400), noise(721, 333)]

Build = Callable[..., Path]


@contextmanager
def opened(engine: Path, thresholds: Thresholds | None = None) -> Iterator[Segmenter]:
    with Segmenter.open(engine, thresholds) as segmenter:
        if not segmenter.name.endswith("frames and masks on the GPU"):
            pytest.skip(f"needs the kernels: {segmenter.name}")
        yield segmenter


@pytest.fixture(params=[write_color_model, write_half_model], ids=["fp32", "fp16"])
def segmenter(build: Build, request: pytest.FixtureRequest) -> Iterator[Segmenter]:
    with opened(build(request.param)) as segmenter:
        yield segmenter


def on_cpu(segmenter: Segmenter, frames: list[NDArray[np.uint8]], task: Task) -> list[Result]:
    """The same session, frames and masks on the CPU."""
    pipeline = HostPipeline(segmenter.session, segmenter.thresholds)
    pipeline.submit(frames, task)
    return pipeline.collect()[0]


SHARE = 1e-3
"""Of the pixels that may differ."""


@pytest.mark.parametrize("task", TASKS)
def test_results_are_those_of_the_cpu(segmenter: Segmenter, task: Task) -> None:
    """Frame by frame, and more than the engine's largest batch at once, each of another size."""
    expected = on_cpu(segmenter, FRAMES, task)
    for frame, found, other in zip(FRAMES, segmenter.batch(FRAMES, task), expected, strict=True):
        check_result(found, other, share=SHARE)
        check_result(segmenter(frame, task), other, share=SHARE)


def test_scores_resized_instead_of_masks(build: Build) -> None:
    with opened(build(write_color_model), SEMANTIC_ONLY) as segmenter:
        for found, other in zip(segmenter.batch(FRAMES), on_cpu(segmenter, FRAMES, "semantic"), strict=True):
            check_result(found, other, share=SHARE)


def test_frames_in_flight_do_not_meet(segmenter: Segmenter) -> None:
    """Results of overlapped frames are, to the bit, those of the same frames one after the other."""
    frames = [noise(200 + 40 * (index % 3), 300, index) for index in range(60)]
    expected = [segmenter(frame, "panoptic") for frame in frames]
    for index in range(len(frames) + 1):
        if index < len(frames):
            segmenter.submit([frames[index]], "panoptic")
        if index:
            (found,), _ = segmenter.collect()
            assert isinstance(found, Panoptic)
            np.testing.assert_array_equal(found.map, expected[index - 1].map)  # type: ignore[union-attr]


def test_memory_for_one_frame_in_flight(segmenter: Segmenter, device: torch.device) -> None:
    """The first is finished before its time."""
    if torch.cuda.get_device_properties(device).is_integrated:
        pytest.skip("needs a GPU with memory of its own: it is filled up")
    frame = picture(1080, 1920, 400)
    expected = segmenter(frame, "panoptic")
    held, size = [], 1 << 30
    try:
        while size >= 1 << 20:
            try:
                held.append(torch.empty(size, dtype=torch.uint8, device=device))
            except torch.OutOfMemoryError:
                size //= 2
        for _ in range(2):
            segmenter.submit([frame], "panoptic")
        assert (segmenter.depth, segmenter.pending) == (1, 2)
        for _ in range(2):
            check_result(segmenter.collect()[0][0], expected)
    finally:
        held.clear()
        torch.cuda.empty_cache()


def test_bench(segmenter: Segmenter) -> None:
    report = bench(segmenter, FRAMES, "panoptic", runs=20)
    assert list(report.latency) == ["upload", "preprocess", "inference", "postprocess", "download", "total"]
    assert min(latency.p50 for latency in report.latency.values()) > 0
    assert report.latency["total"].p50 > report.latency["inference"].p50
    assert report.overlapped_per_second is not None
    assert report.cuda_graph in ("replayed", "captured by TensorRT-RTX")
