"""Frames from images, folders, globs and videos; expected pixels come from Pillow or from how the file was made."""

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from proscale_deploy.core.errors import InputError
from proscale_deploy.runtime.image import read_image, write_image
from proscale_deploy.runtime.streams.source import ImageSource, VideoSource, open_source

GRADIENT = np.stack([*np.meshgrid(np.arange(40), np.arange(30)), np.full((30, 40), 200)], axis=-1).astype(np.uint8)
"""(30, 40, 3); as BGR: blue grows to the right, green downwards, red is 200."""


def write_video(path: Path, frames: int, codec: str = "MJPG", fps: float = 25) -> Path:
    """Frame i is grey level 8 * i."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), fps, (64, 48))
    assert writer.isOpened()
    for i in range(frames):
        writer.write(np.full((48, 64, 3), 8 * i, np.uint8))
    writer.release()
    return path


def test_colour_channels_are_bgr(tmp_path: Path) -> None:
    Image.fromarray(GRADIENT[:, :, ::-1]).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), GRADIENT)


def test_grey_is_repeated(tmp_path: Path) -> None:
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    Image.fromarray(grey).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), np.repeat(grey[:, :, None], 3, 2))


def test_alpha_is_dropped_and_hidden_colour_stays(tmp_path: Path) -> None:
    alpha = np.random.default_rng(0).integers(0, 256, (30, 40, 1), np.uint8)
    Image.fromarray(np.concatenate([GRADIENT[:, :, ::-1], alpha], 2)).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), GRADIENT)


def test_palette(tmp_path: Path) -> None:
    image = Image.new("P", (4, 3), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    image.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), np.full((3, 4, 3), (30, 20, 10)))


def test_16_bit_grey_is_scaled(tmp_path: Path) -> None:
    values = np.array([[0, 128, 129, 257], [32767, 32768, 65406, 65535]], np.uint16)
    (tmp_path / "a.png").write_bytes(cv2.imencode(".png", values)[1].tobytes())
    expected = np.round(values / 65535 * 255)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png")[:, :, 0], expected)


def test_16_bit_colour_is_within_a_level(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 65536, (20, 20, 3)).astype(np.uint16)
    (tmp_path / "a.png").write_bytes(cv2.imencode(".png", values)[1].tobytes())
    assert np.abs(read_image(tmp_path / "a.png") - values / 65535 * 255).max() <= 1


@pytest.mark.parametrize(
    ("orientation", "back"),
    [
        (1, lambda a: a),
        (2, lambda a: a[:, ::-1]),
        (3, lambda a: a[::-1, ::-1]),
        (4, lambda a: a[::-1]),
        (5, lambda a: a.transpose(1, 0, 2)),
        (6, lambda a: np.rot90(a, -1)),
        (7, lambda a: a[::-1, ::-1].transpose(1, 0, 2)),
        (8, lambda a: np.rot90(a, 1)),
    ],
)
def test_exif_orientation(tmp_path: Path, orientation: int, back) -> None:  # type: ignore[no-untyped-def]
    image = Image.fromarray(GRADIENT[:, :, ::-1])
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), back(GRADIENT))


def jpeg() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(file, "jpeg")
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "an empty file"),
        (b"not an image at all", "no image in a format that Pillow knows"),
        (jpeg()[:1500], "truncated"),
        (jpeg()[:30], "a.jpg"),
    ],
    ids=["empty", "text", "cut off", "header only"],
)
def test_unreadable_image_names_the_file(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "a.jpg").write_bytes(data)
    with pytest.raises(InputError, match=message) as caught:
        read_image(tmp_path / "a.jpg")
    assert "a.jpg" in str(caught.value)


def test_image_without_pixels(tmp_path: Path) -> None:
    (tmp_path / "a.ppm").write_bytes(b"P6\n0 0\n255\n")
    with pytest.raises(InputError, match=r"a\.ppm"):
        read_image(tmp_path / "a.ppm")


def test_one_unreadable_image_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    with pytest.raises(InputError), open_source(tmp_path / "a.png") as source:
        list(source)


def test_folder_in_natural_order_skips_what_it_cannot_read(tmp_path: Path) -> None:
    for i in (1, 10, 2):
        write_image(tmp_path / f"{i}.png", np.full((8, 8, 3), i, np.uint8))
    (tmp_path / "3.jpg").write_bytes(b"broken")
    (tmp_path / "notes.txt").write_text("not an image")
    with open_source(tmp_path) as source:
        frames = list(source)
    assert [int(frame.image[0, 0, 0]) for frame in frames] == [1, 2, 10]
    assert [frame.index for frame in frames] == [0, 1, 3]
    assert [frame.image_id for frame in frames] == [1, 2, 10]
    assert source.length == 4
    assert len(source.skipped) == 1
    assert "3.jpg" in source.skipped[0]


def test_glob_and_names_that_differ_by_suffix_or_folder_only(tmp_path: Path) -> None:
    for name in ("x/a.png", "x/a.jpg", "y/a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_image(tmp_path / name, np.zeros((8, 8, 3), np.uint8))
    with open_source(f"{tmp_path}/*/a.*") as source:
        assert [frame.name for frame in source] == ["x__a.jpg", "x__a.png", "y__a.png"]
    with open_source(f"{tmp_path}/x/a.*") as source:
        assert [(frame.name, frame.image_id) for frame in source] == [("a.jpg", 0), ("a.png", 1)]


@pytest.mark.parametrize("uri", ["missing.png", "missing/", "*.png"])
def test_nothing_there(tmp_path: Path, uri: str) -> None:
    with pytest.raises(InputError, match=r"no such|no file"):
        open_source(f"{tmp_path}/{uri}")


def test_folder_without_images(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no images in folder"):
        open_source(tmp_path)


def test_folder_of_videos(tmp_path: Path) -> None:
    for name in ("b10.mp4", "b2.MP4", "notes.txt"):
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=r"give one video at a time, as .*b2\.MP4$"):
        open_source(tmp_path)


@pytest.mark.parametrize("uri", ["rtsp://user:secret@10.0.0.1/s?x=1", "http://camera/mjpg", "/dev/video0"])
def test_what_has_no_end_is_no_file(uri: str) -> None:
    with pytest.raises(InputError, match=r"expected files; only proscale-deploy predict") as caught:
        open_source(uri)
    assert "secret" not in str(caught.value)


def test_a_name_with_brackets_is_not_a_glob(tmp_path: Path) -> None:
    write_image(tmp_path / "a[1].png", np.zeros((8, 8, 3), np.uint8))
    assert isinstance(open_source(tmp_path / "a[1].png"), ImageSource)


def test_video_frames_in_order_with_time(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.avi", 12, fps=20)
    with open_source(path) as source:
        assert isinstance(source, VideoSource)
        assert (source.length, source.fps) == (12, 20)
        frames = list(source)
    np.testing.assert_allclose([frame.image.mean() for frame in frames], np.arange(12) * 8, atol=2)
    np.testing.assert_allclose([frame.timestamp for frame in frames], np.arange(12) / 20, atol=2e-3)
    assert [frame.name for frame in frames[:2]] == ["clip_000000", "clip_000001"]
    assert source.warnings == []


def test_video_that_ends_mid_frame_gives_what_is_there(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.avi", 30).read_bytes()
    path = tmp_path / "cut.avi"
    path.write_bytes(whole[: len(whole) * 2 // 3])
    with open_source(path) as source:
        count = len(list(source))
    assert 5 < count < 30
    assert len(source.warnings) == 1
    assert f"{30 - count} frames fewer than announced ({count} of 30)" in source.warnings[0]


def test_video_without_its_index_is_an_error(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.mp4", 30, "mp4v").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"cut\.mp4.*cut off"):
        open_source(tmp_path / "cut.mp4")


def test_video_without_frames(tmp_path: Path) -> None:
    path = write_video(tmp_path / "none.avi", 0)
    with pytest.raises(InputError, match="no frame"), open_source(path) as source:
        list(source)


@pytest.mark.parametrize("data", [b"", b"plain text"])
def test_not_a_video(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.mp4").write_bytes(data)
    with pytest.raises(InputError, match=r"a\.mp4"):
        open_source(tmp_path / "a.mp4")
