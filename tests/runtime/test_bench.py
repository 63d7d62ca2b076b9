"""What a measurement contains; not how fast anything is."""

import numpy as np
import pytest

from proscale_deploy.core.errors import InputError
from proscale_deploy.runtime.bench import bench, synthetic_frames
from proscale_deploy.runtime.segmenter import Segmenter
from support.color_model import ColorSession, picture


def test_report() -> None:
    session = ColorSession()
    calls: list[None] = []
    report = bench(Segmenter(session), [picture()], "instance", runs=7, progress=lambda: calls.append(None))  # type: ignore[arg-type]
    assert (report.task, report.session, report.runs, len(calls)) == ("instance", "numpy", 7, 7)
    assert (report.frame_hw, report.input_hw) == ((120, 180), (64, 96))
    assert len(session.batches) > 7, "no warm-up"
    assert list(report.latency) == ["preprocess", "inference", "postprocess", "total"]
    for latency in report.latency.values():
        assert 0 < latency.p50 <= latency.p90 <= latency.p99
    assert report.latency["total"].p50 >= report.latency["inference"].p50
    assert report.frames_per_second > 0
    assert report.peak_memory_mb > 20
    assert report.versions["numpy"] == np.__version__


def test_what_is_found_is_counted() -> None:
    model = Segmenter(ColorSession())  # type: ignore[arg-type]
    assert bench(model, [picture()], "panoptic", runs=1).found == 3
    assert bench(model, [picture()], "semantic", runs=1).found == 3


def test_synthetic_frames_are_the_same_every_time() -> None:
    frames = synthetic_frames((90, 160), 3, seed=1)
    assert [frame.shape for frame in frames] == [(90, 160, 3)] * 3
    assert all(frame.dtype == np.uint8 and frame.std() > 20 for frame in frames)
    assert not np.array_equal(frames[0], frames[1])
    np.testing.assert_array_equal(frames, synthetic_frames((90, 160), 3, seed=1))


def test_a_task_the_model_cannot_do() -> None:
    with pytest.raises(InputError):
        bench(Segmenter(ColorSession()), [picture()], "depth", runs=1)  # type: ignore[arg-type]
