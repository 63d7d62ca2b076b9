"""What is written can be read again, and nothing is left behind when it cannot."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import cv2
import numpy as np
import pytest

from proscale_deploy.core.errors import DeployError, InputError
from proscale_deploy.core.types import Panoptic
from proscale_deploy.runtime.image import read_image, write_image
from proscale_deploy.runtime.streams.output import Picture
from proscale_deploy.runtime.streams.sink import Sink, VideoSink, open_sink, results_folder
from proscale_deploy.runtime.streams.source import Frame, ImageSource, VideoSource
from proscale_deploy.runtime.streams.stats import Segmented
from support.results import listing


class Drawn(Picture):
    """A picture that needs no drawing."""

    def __init__(self, image: np.ndarray) -> None:
        self._image, self.seconds = image, 0.0

    def __call__(self) -> np.ndarray:
        return self._image


def put(sink: Sink, frame: Frame, image: np.ndarray | None = None) -> None:
    """Hand over ``image``, by default the frame itself."""
    result = Panoptic(np.zeros(frame.image.shape[:2], np.int32), ())
    sink.write(Segmented(frame, result, "panoptic"), Drawn(frame.image if image is None else image))


def picture(index: int, height: int = 48, width: int = 64, seconds: float | None = None) -> Frame:
    """Grey level 8 * index."""
    timestamp = index / 25 if seconds is None else seconds
    return Frame(np.full((height, width, 3), 8 * index, np.uint8), f"p{index}", index, index, timestamp)


def decode(path: Path) -> tuple[list[np.ndarray], float]:
    """All frames and the frame rate, by OpenCV's reader."""
    capture, frames = cv2.VideoCapture(str(path)), []
    assert capture.isOpened()
    while (step := capture.read())[0]:
        frames.append(step[1])
    return frames, capture.get(cv2.CAP_PROP_FPS)


def video_source(folder: Path) -> VideoSource:
    path = folder / "in" / "clip.avi"
    path.parent.mkdir(exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 20, (64, 48))
    writer.write(np.zeros((48, 64, 3), np.uint8))
    writer.release()
    return VideoSource(path)


def image_source(folder: Path, *names: str) -> ImageSource:
    (folder / "in").mkdir(exist_ok=True)
    for name in names:
        write_image(folder / "in" / name, np.zeros((8, 8, 3), np.uint8))
    return ImageSource([folder / "in" / name for name in names])


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".avi", ".webm"])
@pytest.mark.parametrize("rate", [7.5, 30000 / 1001])
def test_video_comes_back(tmp_path: Path, suffix: str, rate: float) -> None:
    path, levels = tmp_path / f"out{suffix}", np.abs(np.arange(200) % 60 - 30)
    with VideoSink(path, rate) as sink:
        for level in levels:
            put(sink, picture(level))
        assert not path.exists()
    frames, fps = decode(path)
    assert fps == pytest.approx(rate, abs=0.01)
    np.testing.assert_allclose([frame.mean() for frame in frames], 8 * levels, atol=4)
    assert os.listdir(tmp_path) == [path.name]


def test_odd_sizes_lose_no_pixel(tmp_path: Path) -> None:
    with VideoSink(tmp_path / "out.mp4", 25) as sink:
        put(sink, picture(9, 47, 63))
    assert decode(tmp_path / "out.mp4")[0][0].shape == (48, 64, 3)


def test_another_size_is_fitted_into_the_first(tmp_path: Path) -> None:
    with VideoSink(tmp_path / "out.avi", 25) as sink:
        put(sink, picture(0))
        put(sink, picture(25, 96, 96))
    _, fitted = decode(tmp_path / "out.avi")[0]
    assert fitted.shape == (48, 64, 3)
    np.testing.assert_allclose(fitted[:, :44], 200, atol=6)
    np.testing.assert_allclose(fitted[:, 52:], 0, atol=6)


@pytest.mark.parametrize(("rate", "seconds"), [(5, 2.0), (60, 1.0)], ids=["slower", "faster"])
def test_a_recording_plays_as_fast_as_the_world_went(tmp_path: Path, rate: int, seconds: float) -> None:
    """Level 8 * i was the newest from second i / rate on."""
    with VideoSink(tmp_path / "out.avi", 25, real_time=True) as sink:
        for i in range(round(rate * seconds)):
            put(sink, picture(i % 32, seconds=100 + i / rate))
    levels = [round(frame.mean() / 8) for frame in decode(tmp_path / "out.avi")[0]]
    assert len(levels) == pytest.approx(25 * seconds, abs=25 / min(rate, 25))
    expected = np.round(np.arange(len(levels)) / 25 * rate) % 32
    assert np.mean(np.abs(levels - expected) <= np.ceil(rate / 25)) > 0.8


def test_what_comes_too_fast_for_a_recording_is_not_drawn(tmp_path: Path) -> None:
    drawn: list[int] = []

    class Counted(Drawn):
        def __call__(self) -> np.ndarray:
            drawn.append(1)
            return super().__call__()

    with VideoSink(tmp_path / "out.avi", 30, real_time=True) as sink:
        for i in range(90):
            frame = picture(i % 32, seconds=i / 90)
            sink.write(Segmented(frame, Panoptic(np.zeros((48, 64), np.int32), ()), "panoptic"), Counted(frame.image))
    assert len(drawn) == len(decode(tmp_path / "out.avi")[0]) == pytest.approx(30, abs=1)


def test_a_recording_does_not_show_all_of_an_outage(tmp_path: Path) -> None:
    with VideoSink(tmp_path / "out.avi", 10, real_time=True) as sink:
        for i, seconds in enumerate([0, 0.1, 600.1, 600.2]):
            put(sink, picture(i, seconds=seconds))
    assert len(decode(tmp_path / "out.avi")[0]) == 1 + 1 + 20 + 1


def test_an_error_keeps_the_frames_before_it(tmp_path: Path) -> None:
    def failing() -> None:
        with VideoSink(tmp_path / "out.mp4", 25) as sink:
            for i in range(7):
                put(sink, picture(i))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        failing()
    assert len(decode(tmp_path / "out.mp4")[0]) == 7


def test_no_frame_no_file(tmp_path: Path) -> None:
    with VideoSink(tmp_path / "out.mp4", 25):
        pass
    assert os.listdir(tmp_path) == []


def test_interrupted_video_is_playable(tmp_path: Path) -> None:
    script = textwrap.dedent(
        """
        import sys, time
        from pathlib import Path
        from types import SimpleNamespace
        import numpy as np
        from proscale_deploy.runtime.streams.sink import VideoSink
        from proscale_deploy.runtime.streams.source import Frame
        image = np.zeros((48, 64, 3), np.uint8)
        with VideoSink(Path(sys.argv[1]), 25) as sink:
            for i in range(10_000):
                sink.write(SimpleNamespace(frame=Frame(image, "", i, i, 0.0)), lambda: image)
                if i == 20:
                    print("now", flush=True)
                time.sleep(0.001)
        """
    )
    path = tmp_path / "out.mp4"
    command = [sys.executable, "-c", script, str(path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"now\n"
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert len(decode(path)[0]) >= 21
    assert os.listdir(tmp_path) == ["out.mp4"]


def test_a_disk_that_is_nearly_full_stops_the_video_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = iter([100 << 20] * 5 + [1 << 20])
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": next(free)}))
    with VideoSink(tmp_path / "out.mp4", 25) as sink:
        for i in range(5):
            put(sink, picture(i))
        with pytest.raises(DeployError, match=r"disk is full.*after 5 frames"):
            put(sink, picture(5))
    assert len(decode(tmp_path / "out.mp4")[0]) == 5


LIMITED = """
import resource, sys
from pathlib import Path
from types import SimpleNamespace
import numpy as np
from proscale_deploy.core.errors import DeployError
from proscale_deploy.runtime.image import write_image
from proscale_deploy.runtime.streams.sink import VideoSink
from proscale_deploy.runtime.streams.source import Frame
noise = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
path = Path(sys.argv[1])
try:
    if path.suffix == ".png":
        write_image(path, noise)
    else:
        with VideoSink(path, 25) as sink:
            for i in range(30):
                sink.write(SimpleNamespace(frame=Frame(noise, "", i, i, 0.0)), lambda: noise)
except (DeployError, OSError) as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize(
    ("name", "message"),
    [("out.png", "OSError"), ("out.mp4", "DeployError"), ("out.avi", "DeployError"), ("out.webm", "DeployError")],
)
def test_a_write_that_fails_is_an_error_and_leaves_nothing(tmp_path: Path, name: str, message: str) -> None:
    """A file size limit fails like a full disk; OpenCV's writer says nothing of it."""
    command = [sys.executable, "-c", LIMITED, str(tmp_path / name)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout.startswith(message)
    assert os.listdir(tmp_path) == []


def test_video_goes_to_a_file_or_into_a_folder(tmp_path: Path) -> None:
    source = video_source(tmp_path)
    assert open_sink(tmp_path / "a.mkv", source).path == tmp_path / "a.mkv"
    with open_sink(tmp_path / "made", source) as sink:
        assert not (tmp_path / "made").exists(), "before the first frame"
        put(sink, picture(0))
    assert listing(tmp_path / "made") == ["clip.mp4"]
    assert results_folder(tmp_path / "a.mkv") == tmp_path / "a_results"
    assert results_folder(tmp_path / "made") == tmp_path / "made"


def test_images_go_into_a_folder(tmp_path: Path) -> None:
    source = image_source(tmp_path, "a.png", "b.png")
    with open_sink(f"{tmp_path}/v1.5/", source) as sink:
        for frame in source:
            put(sink, frame)
    assert sorted(os.listdir(tmp_path / "v1.5")) == ["a.jpg", "b.jpg"]


def test_one_image_goes_to_a_file(tmp_path: Path) -> None:
    source = image_source(tmp_path, "a.png")
    with open_sink(tmp_path / "b.png", source) as sink:
        for frame in source:
            put(sink, frame, frame.image + 7)
    assert read_image(tmp_path / "b.png").min() == 7


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("missing/a.png", "mkdir -p"),
        ("missing/folder", "mkdir -p"),
        ("a.xyz", r"write an image to .*one of .*\.png"),
        ("a.mp4", r"one of .*\.png"),
        ("in/a.png", "replace the input"),
    ],
)
def test_bad_output_for_an_image(tmp_path: Path, output: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_sink(tmp_path / output, image_source(tmp_path, "a.png"))


def test_bad_output_for_a_video(tmp_path: Path) -> None:
    for output, message in [
        ("missing/a.mp4", "mkdir -p"),
        ("a.png", r"write a video to .*one of .*\.mp4"),
        ("in/clip.avi", "replace"),
    ]:
        with pytest.raises(InputError, match=message):
            open_sink(tmp_path / output, video_source(tmp_path))


def test_a_folder_of_images_never_overwrites_itself(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="replace the input"):
        open_sink(tmp_path / "in", image_source(tmp_path, "a.jpg", "b.jpg"))


def test_overlays_do_not_mix_with_their_images(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is the folder the images come from"):
        open_sink(tmp_path / "out" / ".." / "in", image_source(tmp_path, "a.png", "b.png"))


def test_many_images_do_not_fit_one_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="one file for 2 images"):
        open_sink(tmp_path / "a.png", image_source(tmp_path, "a.png", "b.png"))
