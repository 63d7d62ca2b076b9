"""The clip as a stream, and the picture of its page."""

import shutil
from itertools import islice, pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from samples.street.stream_page import Camera, photograph
from support.chromium import PROGRAM
from support.color_model import picture, write_color_model


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Three frames, a car moving through them."""
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, (180, 120))
    for car in (20, 60, 100):
        writer.write(picture(car=car))
    writer.release()
    return path


def test_the_camera_never_ends_until_it_is_stopped(clip: Path) -> None:
    with Camera(clip) as camera:
        frames = iter(camera)
        seen = list(islice(frames, 7))
        assert [frame.index for frame in seen] == list(range(7))
        assert [int(np.argmax(frame.image[80, :, 2])) // 20 for frame in seen] == [1, 3, 5, 1, 3, 5, 1]
        assert all(later.captured > earlier.captured for earlier, later in pairwise(seen))
        camera.stop()
        assert next(frames, None) is None


@pytest.mark.skipif(PROGRAM is None, reason="needs Chromium: apt install chromium")
def test_the_picture_shows_the_stream(clip: Path, tmp_path: Path) -> None:
    model, page = tmp_path / "model.onnx", tmp_path / "page.png"
    write_color_model(model)
    assert photograph(model, clip, page, seconds=1.0) == ""
    shot = cv2.imread(str(page))
    assert shot is not None
    assert shot.shape == (900, 1440, 3)
    live = shot[300, 20:1000].astype(int)
    assert ((live[:, 0] > 150) & (live[:, 2] < 100)).mean() > 0.5, "the sky is blue"


def test_without_a_browser_it_says_so(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    page = tmp_path / "page.png"
    page.write_bytes(b"of an earlier run")
    assert "no Chromium" in photograph(tmp_path / "model.onnx", clip, page)
    assert not page.exists()
