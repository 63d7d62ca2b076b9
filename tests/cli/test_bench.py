"""``bench``: what is printed, for people and as JSON."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from proscale_deploy import cli
from proscale_deploy.runtime.gpu.power import Power, PowerMeter
from proscale_deploy.runtime.image import write_image
from support import fake_kernels
from support.color_model import picture, write_color_model
from support.fake_gpu import FakeGpu


def bench(tmp_path: Path, *arguments: str) -> object:
    model = write_color_model(tmp_path / "m.onnx")
    with pytest.raises(SystemExit) as caught:
        cli.main(["bench", str(model), "--runs", "3", *arguments])
    return caught.value.code


def test_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench(tmp_path) == 0
    out = capsys.readouterr().out
    for word in ("p50", "p90", "p99", "inference", "frames per second", "peak memory", "made-up frames", "1080x1920"):
        assert word in out


def test_table_of_a_gpu(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeGpu(tmp_path, monkeypatch)
    fake_kernels.install(monkeypatch)
    power = Power("30W", (306, 612), (306, 625), 51.0, None, ("power limit",))
    meter = SimpleNamespace(look=lambda: None, report=lambda: power)
    monkeypatch.setattr(PowerMeter, "open", lambda gpu: meter)
    engine = fake.engine(write_color_model(tmp_path / "m.onnx"))
    write_image(tmp_path / "a.png", picture())
    with pytest.raises(SystemExit) as caught:
        cli.main(["bench", str(engine), "--runs", "3", "--source", str(tmp_path / "a.png")])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    for words in (
        "panoptic on TensorRT 10.3.0, Orin, frames and masks on the GPU",
        "upload",
        "download",
        "with two in flight",
        "CUDA graph: replayed",
        "power mode 30W; GPU at 306-612 MHz of 625; 51 °C; THROTTLED: power limit",
    ):
        assert words in out


def test_json_on_frames_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_image(tmp_path / "a.png", picture())
    assert bench(tmp_path, "--source", str(tmp_path / "a.png"), "--json", "--task", "semantic") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["frames"] == str(tmp_path / "a.png")
    assert report["frame_hw"] == [120, 180]
    assert (report["task"], report["runs"], report["found"]) == ("semantic", 3, 3)
    assert set(report["latency"]["inference"]) == {"p50", "p90", "p99"}


def test_a_source_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench(tmp_path, "--source", "nowhere.png") == 1
    assert capsys.readouterr().err.startswith("error: no such file")
