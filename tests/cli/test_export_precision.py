"""``export --precision`` and ``sensitivity`` from the command line."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from proscale_deploy import cli
from proscale_deploy.cli.calibration import read_calibration
from proscale_deploy.export import blocks, precision, sensitivity
from proscale_deploy.runtime.image import write_image
from support import street

STREET = Path(__file__).parents[2] / "samples" / "street"
SAMPLE = ["--config", str(STREET / "street.yaml"), "--weights", str(STREET / "street_proscale.pth")]
SAMPLE += ["--classes", str(STREET / "classes.json"), "--size", "96x160"]


def run(*arguments: str) -> object:
    with pytest.raises(SystemExit) as caught:
        cli.main(list(arguments))
    return caught.value.code


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index in range(20):
        write_image(folder / f"{index}.png", street.frame(index))
    return folder


def test_int8_file_with_half_inputs(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = ["--precision", "int8", "--calibration", "pictures", "--io", "fp16", "--exclude", "/backbone/res5/*"]
    assert run("export", *SAMPLE, *chosen, "--output", "m.onnx") == 0
    out = capsys.readouterr().out
    assert "INT8's ranges, image 20 of 20" in out
    assert "nodes in INT8" in out
    assert run("inspect", "m.onnx", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    conversion = facts["conversion"]
    assert facts["precision"] == "int8"
    assert conversion["io"] == "fp16"
    assert conversion["excluded"] == ["/backbone/res5/*"]
    assert (conversion["calibration"]["source"], conversion["calibration"]["images"]) == ("pictures", 20)
    assert len(conversion["calibration"]["sha256"]) == 64
    assert facts["nodes"]["QuantizeLinear"] > 50
    assert run("inspect", "m.onnx") == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "int8; fp16 in backbone stem, backbone res5, recalibration, mask head, class head; without" in text
    assert "without /backbone/res5/*; ranges from 20 images of pictures, sha256" in text
    assert "(batch, 3, 96, 160) float16 RGB" in text
    assert run("predict", "m.onnx", "pictures/0.png", "--output", "p.png") == 0


def test_unreadable_pictures_do_not_count(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for index in range(6):
        (pictures / f"{index}.png").write_bytes(b"no picture")
    chosen = ["--precision", "int8", "--calibration", "pictures"]
    assert run("export", *SAMPLE, *chosen, "--output", "m.onnx") == 1
    err = capsys.readouterr().err
    assert "error: pictures: found 14 images to calibrate with, needed are at least 16" in err
    assert not Path("m.onnx").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--precision", "int8"], "--precision int8 needs --calibration"),
        (["--precision", "auto", "--tolerance", "1"], "--precision auto needs --calibration"),
        (["--precision", "auto", "--calibration", "x"], "--precision auto and --tolerance go together"),
        (["--precision", "fp16", "--tolerance", "1"], "--precision auto and --tolerance go together"),
        (["--calibration", "x"], "are for --precision fp16, int8 and auto"),
        (["--io", "fp16"], "are for --precision fp16, int8 and auto"),
        (["--exclude", "x"], "are for --precision fp16, int8 and auto"),
    ],
)
def test_options_that_do_not_go_together(capsys: pytest.CaptureFixture[str], options: list[str], message: str) -> None:
    assert run("export", *SAMPLE, *options, "--output", "m.onnx") == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_pictures_of_a_video(tmp_path: Path) -> None:
    path = str(tmp_path / "drive.avi")
    writer = cv2.VideoWriter(path, cv2.VideoWriter.fourcc(*"MJPG"), 10, (320, 192))
    for index in range(70):
        writer.write(np.full((192, 320, 3), 3 * index, np.uint8))
    writer.release()
    images = read_calibration(path, street.manifest().input)
    assert images.arrays.shape == (32, 3, 192, 320)
    assert (images.facts.source, images.facts.images) == (path, 32)
    brightness = images.arrays.mean(axis=(1, 2, 3))
    assert (np.diff(brightness) > 0).all()
    assert brightness[-1] - brightness[0] > 0.8 * 210 / 57  # over the length of the video


def test_no_pictures_at_all(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("export", *SAMPLE, "--precision", "int8", "--calibration", "none", "--output", "m.onnx") == 1
    assert "no such file or folder: none" in capsys.readouterr().err


def test_auto_and_sensitivity(
    pictures: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With three blocks in place of nineteen, to spare the time."""
    few = {"backbone": "backbone", "pixel_decoder": "pixel decoder", "predictor": "predictor"}

    def block_of(name: str) -> str:
        return few.get(name.split("/")[1] if "/" in name else "", "other")

    def blocks_of(nodes: object) -> tuple[str, ...]:
        return tuple(few.values())

    assert blocks.block_of("/backbone/stem/conv1/Conv") == "backbone stem"  # what is replaced
    for module in (precision, sensitivity):
        monkeypatch.setattr(module, "block_of", block_of)
    monkeypatch.setattr(precision, "blocks_of", blocks_of)

    chosen = ["--precision", "auto", "--tolerance", "0", "--calibration", "pictures"]
    assert run("export", *SAMPLE, *chosen, "--output", "m.onnx") == 0
    out = capsys.readouterr().out
    assert "this mix differs from FP32 by 0.00 points of PQ" in out
    assert run("inspect", "m.onnx", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert list(dict(facts["conversion"]["blocks"])) == list(few.values())

    assert run("export", *SAMPLE, "--output", "fp32.onnx") == 0
    assert run("sensitivity", "fp32.onnx", "--calibration", "pictures", "--output", "s.json") == 0
    out = capsys.readouterr().out
    assert "pixel decoder" in out
    facts = json.loads(Path("s.json").read_text())
    assert facts["calibration"]["images"] == 20
    assert [(entry["block"], entry["precision"]) for entry in facts["blocks"]] == [
        (block, precision) for precision in ("fp16", "int8") for block in few.values()
    ]
    assert all(entry["loss"]["error"] > 0 for entry in facts["blocks"])
    assert Path("s.png").stat().st_size > 1000

    assert run("sensitivity", "m.onnx", "--calibration", "pictures", "--output", "t.json") == 1
    assert "already; give the file of --precision fp32" in capsys.readouterr().err
    assert run("sensitivity", "fp32.onnx", "--calibration", "pictures", "--output", "t.txt") == 1
    assert "expected a .json file" in capsys.readouterr().err
