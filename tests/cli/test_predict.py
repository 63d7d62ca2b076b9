"""``predict`` from end to end, on a network that segments by colour."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from proscale_deploy import cli
from proscale_deploy.runtime.image import read_image, write_image
from support.color_model import picture, write_color_model
from support.results import listing


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder with the model in ``in/m.onnx``, a picture, three pictures, and a clip of 12 frames."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in" / "many").mkdir(parents=True)
    write_color_model(tmp_path / "in/m.onnx")
    write_image(tmp_path / "in/street.png", picture())
    for number in (1, 2, 10):
        write_image(tmp_path / f"in/many/{number}.png", picture(car=8 * number))
    write_clip(tmp_path / "in/clip.avi", 12)
    return tmp_path


def write_clip(path: Path, frames: int) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (180, 120))
    for i in range(frames):
        writer.write(picture(car=2 * (i % 60)))
    writer.release()


def predict(*arguments: str) -> object:
    with pytest.raises(SystemExit) as caught:
        cli.main(["predict", "in/m.onnx", *arguments])
    return caught.value.code


def count_frames(path: Path) -> int:
    capture, count = cv2.VideoCapture(str(path)), 0
    while capture.read()[0]:
        count += 1
    return count


def test_a_glob_without_quotes_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert predict("in/many/1.png", "in/many/2.png") == 2
    assert "the glob in quotes: 'images/*.png'" in capsys.readouterr().err


def test_image_to_image(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert predict("in/street.png", "--output", "out.png") == 0
    drawn, frame = read_image(folder / "out.png"), picture()
    assert drawn.shape[0] > 120, "no legend"
    assert drawn.shape[1] == 180
    np.testing.assert_allclose(drawn[115, 170], (frame[115, 170] + np.array([128, 64, 128])) / 2, atol=1)
    out = capsys.readouterr().out
    for word in ("Colours, no backbone", "ONNX Runtime", "preprocess", "inference", "postprocess", "wrote out.png"):
        assert word in out


def test_the_default_output_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert predict("in/street.png") == 0
    assert listing(folder / "predictions") == ["street.jpg"]
    out = capsys.readouterr().out
    assert "wrote predictions/street.jpg\n" in out
    assert "1 frame in" in out


@pytest.mark.parametrize("source", ["in/many", "in/many/*.png"])
def test_folder_and_glob(folder: Path, source: str) -> None:
    assert predict(source, "--output", "out", "--save", "json", "--task", "instance") == 0
    assert listing(folder / "out") == ["1.jpg", "10.jpg", "2.jpg", "results.json"]
    entries = json.loads((folder / "out/results.json").read_text())
    best = {entry["image_id"]: entry for entry in reversed(entries)}
    assert list(best) == [10, 2, 1]
    assert {entry["category_id"] for entry in entries} == {300}
    for number, entry in best.items():
        assert entry["bbox"][0] == pytest.approx(8 * number, abs=6)


def test_video_to_video(folder: Path) -> None:
    assert predict("in/clip.avi", "--output", "out.mp4", "--save", "png", "--save", "npz") == 0
    assert count_frames(folder / "out.mp4") == 12
    capture = cv2.VideoCapture(str(folder / "out.mp4"))
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(10)
    names = [f"clip_{i:06d}" for i in range(12)]
    expected = [f"npz/{name}.npz" for name in names] + ["panoptic.json"] + [f"panoptic/{name}.png" for name in names]
    assert listing(folder / "out_results") == expected


def test_semantic_png(folder: Path) -> None:
    assert predict("in/street.png", "--output", "out", "--save", "png", "--task", "semantic") == 0
    labels = cv2.imread(str(folder / "out/semantic/street.png"), cv2.IMREAD_UNCHANGED)
    assert (labels.dtype, labels.shape) == (np.uint16, (120, 180))
    assert (labels[5, 5], labels[115, 170], labels[80, 60]) == (11, 7, 300)


def test_grey_rgba_and_16_bit_images(folder: Path) -> None:
    many = folder / "in/many"
    write_image(many / "grey.png", picture()[:, :, 0].copy())
    write_image(many / "deep.png", picture()[:, :, 0].astype(np.uint16) * 257)
    cv2.imwrite(str(many / "alpha.png"), np.dstack([picture(), picture()[:, :, 0]]))
    assert predict("in/many", "--output", "out") == 0
    assert len(listing(folder / "out")) == 6


def test_an_unreadable_image_among_others(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "in/many/3.jpg").write_bytes(b"")
    assert predict("in/many", "--output", "out") == 1
    assert listing(folder / "out") == ["1.jpg", "10.jpg", "2.jpg"]
    err = capsys.readouterr().err
    assert "3.jpg: an empty file" in err
    assert "1 of 4 images could not be read" in err


def test_no_readable_image(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for file in (folder / "in/many").iterdir():
        file.write_bytes(b"")
    assert predict("in/many", "--output", "out") == 1
    out, err = capsys.readouterr()
    assert "wrote" not in out
    assert "3 of 3 images could not be read" in err
    assert not (folder / "out").exists()


@pytest.mark.parametrize(
    ("model", "source"), [("in/street.png", "in/m.onnx"), ("in/CLIP.MP4", "m.engine"), ("in", "in/m.onnx")]
)
def test_swapped_arguments(folder: Path, capsys: pytest.CaptureFixture[str], model: str, source: str) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["predict", model, source])
    assert caught.value.code == 1
    assert f"swapped? MODEL comes first: proscale-deploy predict {source} {model}\n" in capsys.readouterr().err


def test_a_video_that_ends_mid_frame(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = (folder / "in/clip.avi").read_bytes()
    (folder / "in/cut.avi").write_bytes(whole[: len(whole) * 2 // 3])
    assert predict("in/cut.avi", "--output", "out.mp4") == 0
    found = count_frames(folder / "out.mp4")
    assert 2 < found < 12
    assert f"warning: in/cut.avi: {12 - found} frames fewer than announced ({found} of 12)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["in/none.png"], "no such file"),
        (["in/m.onnx"], "neither a video"),
        (["in/street.png", "--output", "no/out.png"], "mkdir -p no"),
        (["in/street.png", "--output", "in/street.png"], "replace the input"),
        (["in/clip.avi", "--output", "out.png"], ".mp4"),
        (["in/many", "--output", "out.png"], "one file for 3 images"),
    ],
)
def test_bad_arguments(folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    before = listing(folder)
    assert predict(*arguments) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert message in err
    assert len(err.splitlines()) == 1
    assert listing(folder) == before


@pytest.mark.parametrize("model", ["missing.onnx", "text.onnx", "in", "foreign.onnx"])
def test_a_model_file_that_is_not_ours(folder: Path, capsys: pytest.CaptureFixture[str], model: str) -> None:
    (folder / "text.onnx").write_text("no model")
    write_color_model(folder / "foreign.onnx", manifest=None)
    with pytest.raises(SystemExit) as caught:
        cli.main(["predict", model, "in/street.png"])
    assert caught.value.code == 1
    err = capsys.readouterr().err
    assert err.startswith(f"error: {model}: ")
    assert len(err.splitlines()) == 1


def test_a_full_disk(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1 << 20}))
    assert predict("in/clip.avi", "--output", "out.mp4") == 1
    assert "disk is full" in capsys.readouterr().err
    assert not (folder / "out.mp4").exists()


@pytest.mark.parametrize(
    ("sent", "status", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_stopped_in_the_middle_of_a_video(folder: Path, sent: signal.Signals, status: int, word: str) -> None:
    write_clip(folder / "in/long.avi", 3000)
    command = [sys.executable, "-m", "proscale_deploy", "predict", "in/m.onnx", "in/long.avi"]
    command += ["--output", "out.mp4", "--save", "json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not any(path.stat().st_size > 10_000 for path in folder.glob(".out.*.mp4")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(sent)
    _, err = process.communicate(timeout=60)
    assert process.returncode == status
    found = count_frames(folder / "out.mp4")
    assert 0 < found < 3000
    said = re.search(rf"{word}, kept out.mp4 \((\d+) frames\)", err)
    assert said is not None
    assert found == int(said[1])
    assert "Traceback" not in err
    assert len({entry["image_id"] for entry in json.loads((folder / "out_results/results.json").read_text())}) > 0
    assert sorted(os.listdir(folder)) == ["in", "out.mp4", "out_results"]
