"""Raw frames from a pipe."""

import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from proscale_deploy.core.errors import InputError
from proscale_deploy.runtime.streams.inputs import open_input
from proscale_deploy.runtime.streams.raw import RawFormat, RawSource
from support.servers import needs_ffmpeg


@contextmanager
def piped(data: bytes, piece: int = 1000) -> Iterator[int]:
    """A descriptor from which ``data`` comes in small pieces."""
    read, write = os.pipe()

    def feed() -> None:
        with os.fdopen(write, "wb", buffering=0) as file:
            for start in range(0, len(data), piece):
                file.write(data[start : start + piece])

    thread = threading.Thread(target=feed)
    thread.start()
    yield read
    thread.join()
    os.close(read)


def test_frames_come_as_they_were_given() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (5, 12, 16, 3), np.uint8)
    with piped(frames.tobytes()) as descriptor, RawSource(RawFormat(16, 12, 10), descriptor) as source:
        found = list(source)
    np.testing.assert_array_equal([frame.image for frame in found], frames)
    assert [frame.timestamp for frame in found] == [0, 0.1, 0.2, 0.3, 0.4]
    assert found[4].name == "stdin_000004"
    assert source.warnings == []
    assert not source.live


@needs_ffmpeg
def test_the_command_that_is_told_feeds_it() -> None:
    format_ = RawFormat(32, 24)
    feeder = format_.feeder.replace("-i VIDEO", "-loglevel error -f lavfi -i color=c=red:size=64x48:d=0.4").split()
    with subprocess.Popen(feeder, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        with RawSource(format_, process.stdout.fileno()) as source:
            frames = list(source)
    assert len(frames) == 10
    blue, green, red = frames[0].image[12, 16]
    assert red > 240
    assert max(blue, green) < 15


def test_the_last_frame_is_cut_off() -> None:
    with piped(bytes(16 * 12 * 3 * 2 + 7)) as descriptor, RawSource(RawFormat(16, 12), descriptor) as source:
        assert len(list(source)) == 2
    assert source.warnings[0].startswith("standard input ended in the middle of frame 2 (7 of 576 bytes); are the")


@pytest.mark.parametrize(("data", "message"), [(b"", "before the first frame; feed it"), (b"x", "in the middle")])
def test_no_frame_at_all(data: bytes, message: str) -> None:
    with (
        piped(data) as descriptor,
        RawSource(RawFormat(16, 12), descriptor) as source,
        pytest.raises(InputError, match=message) as caught,
    ):
        list(source)
    assert "-f rawvideo -pix_fmt bgr24 -" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1280x720", (1280, 720, 25)), ("64x48@7.5", (64, 48, 7.5)), ("1x1@120", (1, 1, 120))],
)
def test_what_the_frames_are(text: str, expected: tuple[int, int, float]) -> None:
    format_ = RawFormat.parse(text)
    assert (format_.width, format_.height, format_.fps) == expected


@pytest.mark.parametrize("text", ["1280", "0x5", "1280x720@", "1280x720@0", "axb", "1280x720@30fps", "1280 x 720"])
def test_what_they_cannot_be(text: str) -> None:
    with pytest.raises(InputError, match=r"expected WIDTHxHEIGHT or WIDTHxHEIGHT@FPS, for instance 1280x720@30"):
        RawFormat.parse(text)


def test_a_pipe_needs_its_format_and_nothing_else_takes_one() -> None:
    with pytest.raises(InputError, match=r"need --raw .*: ffmpeg -i VIDEO .* \| proscale-deploy predict MODEL - --raw"):
        open_input("-")
    with pytest.raises(InputError, match=r"--raw is for frames from a pipe.*found clip.mp4"):
        open_input("clip.mp4", RawFormat(4, 4))


def test_a_terminal_is_no_pipe() -> None:
    master, slave = os.openpty()
    try:
        with pytest.raises(InputError, match="no frames are piped in; for instance: ffmpeg"):
            RawSource(RawFormat(16, 12), slave)
    finally:
        os.close(master)
        os.close(slave)
