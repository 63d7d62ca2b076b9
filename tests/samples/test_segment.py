"""The samples on the public API, run as their first lines say."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

from support.color_model import picture, write_color_model
from support.servers import Wire, encode, needs_ffmpeg

SAMPLES = Path(__file__).resolve().parents[2] / "samples"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_color_model(tmp_path / "model.onnx")
    return tmp_path


def run(sample: str, *arguments: str) -> str:
    command = [sys.executable, str(SAMPLES / sample), "model.onnx", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


def test_image(folder: Path) -> None:
    cv2.imwrite("street.png", picture())
    out = run("segment_image.py", "street.png", "segmented.png")
    assert re.fullmatch(r"(?:(road|sky|car) +\d+ pixels, score 1.00\n){3}", out)
    drawn = cv2.imread("segmented.png")
    assert drawn.shape[0] > 120
    assert drawn.shape[1] == 180


def test_video(folder: Path) -> None:
    writer = cv2.VideoWriter("drive.avi", cv2.VideoWriter.fourcc(*"MJPG"), 10, (180, 120))
    for i in range(10):
        writer.write(picture(car=2 * i))
    writer.release()
    assert "wrote segmented.avi: 10 frames in" in run("segment_video.py", "drive.avi", "segmented.avi")
    assert cv2.VideoCapture("segmented.avi").get(cv2.CAP_PROP_FRAME_COUNT) == 10


@needs_ffmpeg
def test_stream(folder: Path) -> None:
    data = encode(folder / "a.ts", 500).read_bytes()
    with Wire(lambda: data, 50_000) as wire:
        address = f"http://127.0.0.1:{wire.port}/a.ts"
        command = [sys.executable, "-u", str(SAMPLES / "segment_stream.py"), "model.onnx", address, "0"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("see http://127.0.0.1:")
            assert all(re.match(r" +\d+\.\d\d s  ", process.stdout.readline()) for _ in range(5))
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, "")


@pytest.mark.parametrize("sample", ["segment_image.py", "segment_video.py", "segment_stream.py"])
def test_what_went_wrong_is_a_sentence(folder: Path, sample: str) -> None:
    for arguments, message in (((), f"samples/{sample} model."), (("nowhere.jpg", "out.png"), "error: ")):
        with pytest.raises(subprocess.CalledProcessError) as caught:
            run(sample, *arguments)
        assert message in caught.value.stderr
        assert "Traceback" not in caught.value.stderr


@pytest.mark.parametrize("sample", ["segment_image.py", "segment_video.py", "segment_stream.py"])
def test_they_use_the_public_api_only(sample: str) -> None:
    imported = re.findall(r"^\s*(?:from|import) (proscale_deploy\S*)", (SAMPLES / sample).read_text(), re.M)
    assert set(imported) == {"proscale_deploy.runtime"}
