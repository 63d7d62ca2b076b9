"""What a measurement contains; not how fast anything is."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from proscale_deploy.core.errors import InputError
from proscale_deploy.runtime import bench as bench_module
from proscale_deploy.runtime.bench import bench, synthetic_frames
from proscale_deploy.runtime.gpu.power import Power, PowerMeter
from proscale_deploy.runtime.segmenter import Segmenter
from support import fake_kernels
from support.color_model import ColorSession, picture, write_color_model
from support.fake_gpu import GPU, FakeGpu


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
    assert report.overlapped_per_second is report.overlap is report.cuda_graph is None
    assert report.peak_memory_mb > 20
    assert report.versions["numpy"] == np.__version__


def test_report_of_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stages of the device, two frames in flight, and what the platform tells."""
    fake = FakeGpu(tmp_path, monkeypatch)
    fake_kernels.install(monkeypatch)
    told = Power("30W", (306, 612), (306, 625), 51.0, None, ())
    looks: list[None] = []
    meter = SimpleNamespace(look=lambda: looks.append(None), report=lambda: told)
    monkeypatch.setattr(bench_module, "default_gpu", lambda: GPU)
    monkeypatch.setattr(PowerMeter, "open", lambda gpu: meter if gpu is GPU else None)
    calls: list[None] = []
    with Segmenter.open(fake.engine(write_color_model(tmp_path / "m.onnx"))) as segmenter:
        report = bench(segmenter, [picture(), picture(300, 200)], "panoptic", 7, lambda: calls.append(None))
        assert segmenter.pending == 0
    assert report.session == "TensorRT 10.3.0, Orin, frames and masks on the GPU"
    assert list(report.latency) == ["upload", "preprocess", "inference", "postprocess", "download", "total"]
    stages = [latency.p50 for stage, latency in report.latency.items() if stage != "total"]
    assert report.latency["total"].p50 > max(stages) > 0
    assert report.overlapped_per_second is not None
    assert report.overlap == pytest.approx(report.overlapped_per_second / report.frames_per_second)
    assert report.cuda_graph == "replayed"
    assert report.power == told
    assert len(calls) == 14
    assert looks
    assert report.versions["tensorrt"] == "10.3.0"


def test_memory_for_one_frame_in_flight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be measured is not; the rest is."""
    fake = FakeGpu(tmp_path, monkeypatch)
    fake_kernels.install(monkeypatch)
    with Segmenter.open(fake.engine(write_color_model(tmp_path / "m.onnx"))) as segmenter:
        # What a single frame needs is there when the first run is over.
        report = bench(segmenter, [picture()], "panoptic", 3, lambda: fake.mood(cuda="out of memory"))
        assert segmenter.pending == 0
    assert "one batch at a time" in report.session
    assert report.overlapped_per_second is report.overlap is None
    assert report.latency["total"].p50 > 0


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
