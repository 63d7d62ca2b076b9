"""What takes results: other programs through a pipe or a server, people through a window or a page."""

import contextlib
import io
import json
import os
import signal
import sys
import time
import types
import urllib.request
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import mask as rle

from proscale_deploy.core.errors import DeployError, InputError, MissingDependency
from proscale_deploy.runtime import Segmenter, Stream, open_output, serve_page
from proscale_deploy.runtime.streams import publish
from proscale_deploy.runtime.streams.json_lines import JsonLines
from proscale_deploy.runtime.streams.output import Picture
from proscale_deploy.runtime.streams.publish import Publisher
from proscale_deploy.runtime.streams.source import ImageSource
from proscale_deploy.runtime.streams.stats import Segmented
from proscale_deploy.runtime.streams.uri import Uri
from proscale_deploy.runtime.streams.window import Window
from support.cameras import Camera, live, street
from support.color_model import ColorSession
from support.results import CLASSES, SIZE, frame, instances, panoptic, semantic
from support.servers import free_port, needs_ffmpeg, needs_rtsp_server, rtsp_server

# pycocotools' decode does not know NumPy 2's signature of __array__.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def item(index: int = 0, height: int = SIZE[0]) -> tuple[Segmented, Picture]:
    found = panoptic()
    if height != SIZE[0]:
        found = type(found)(np.zeros((height, 80), np.int32), ())
    segmented = Segmented(frame(index, f"f{index}", np.full((height, 80, 3), 100, np.uint8)), found, "panoptic")
    return segmented, Picture(segmented, CLASSES)


def test_json_lines() -> None:
    file = io.StringIO()
    with JsonLines(file) as output:
        for index, (task, result) in enumerate(
            {"panoptic": panoptic(), "instance": instances(), "semantic": semantic()}.items()
        ):
            segmented = Segmented(frame(index, f"f{index}"), result, task)  # type: ignore[arg-type]
            output.write(segmented, picture := Picture(segmented, CLASSES))
            assert picture.seconds == 0, "drawn for nobody"
    lines = [json.loads(line) for line in file.getvalue().splitlines()]
    assert [(line["frame"], line["name"], line["task"]) for line in lines] == [
        (0, "f0", "panoptic"),
        (1, "f1", "instance"),
        (2, "f2", "semantic"),
    ]
    assert lines[1]["time"] == 0.04
    assert (lines[0]["height"], lines[0]["width"]) == SIZE
    car = lines[0]["results"][2]
    assert (car["class"], car["category_id"], car["score"], car["bbox"]) == ("car", 300, 0.75, [30, 20, 30, 20])
    counts = {**car["segmentation"], "counts": car["segmentation"]["counts"].encode()}
    np.testing.assert_array_equal(rle.decode(counts).astype(bool), panoptic().map == 3)
    assert [len(line["results"]) for line in lines] == [3, 5, 3]


def test_json_lines_without_pycocotools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(MissingDependency, match=r"--output - needs pycocotools.*proscale-deploy\[coco\]"):
        open_output("-", ImageSource([]))


@needs_ffmpeg
@needs_rtsp_server
def test_a_server_takes_the_stream_also_in_another_size() -> None:
    with rtsp_server() as (server, port):
        assert server.stdout is not None
        uri = Uri.parse(f"rtsp://127.0.0.1:{port}/sink")
        with Publisher(uri, 25) as output:
            for index in range(80):
                output.write(*item(index, 60 if index < 40 else 91))
                time.sleep(0.02)
        time.sleep(0.3)
        server.terminate()
        sizes = [tuple(map(int, line.split()[2:])) for line in server.stdout.read().splitlines()]
    strip = item()[1]().shape[0] - 60
    assert len(sizes) > 20
    assert {(80, 60 + strip), (80, (91 + strip + 1) // 2 * 2)} <= set(sizes)


@needs_ffmpeg
def test_no_server_there() -> None:
    output = Publisher(Uri.parse(f"rtsp://me:secret@127.0.0.1:{free_port()}/x"), 25)

    def send() -> None:
        for index in range(500):
            output.write(*item(index))
            time.sleep(0.01)

    with pytest.raises(DeployError, match=r"sending to rtsp://127.0.0.1:\d+/x failed: .*refused") as caught:
        send()
    assert "secret" not in str(caught.value)
    output.close()


def stand_in_for_ffmpeg(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> Publisher:
    program = folder / "ffmpeg"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    return Publisher(Uri.parse("rtsp://me:secret@server/x"), 25)


def test_a_server_that_takes_nothing_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish, "_STALL_SECONDS", 0.2)
    output = stand_in_for_ffmpeg(tmp_path, monkeypatch, "exec sleep 60")

    def send() -> None:
        for index in range(500):
            output.write(*item(index))

    with pytest.raises(DeployError, match=r"sending to rtsp://server/x failed: nothing was taken for 0.2 seconds"):
        send()
    process = output._process
    assert process is not None
    with contextlib.suppress(DeployError):
        output.close()
    assert process.returncode == -signal.SIGKILL


def test_that_the_last_pictures_were_not_sent_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = 'cat > "$0.sent"; echo "[rtsp @ 0x1] rtsp://me:secret@server/x: 401 Unauthorized" >&2; exit 1'
    output = stand_in_for_ffmpeg(tmp_path, monkeypatch, script)
    image = item()[1]()
    output.write(*item())
    with pytest.raises(DeployError, match=r"failed: rtsp://server/x: 401 Unauthorized; does a server run there"):
        output.close()
    assert (tmp_path / "ffmpeg.sent").read_bytes() == image.tobytes()
    output.close()


def test_sending_without_ffmpeg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InputError, match=r"needs the ffmpeg program.*apt install ffmpeg"):
        open_output("rtsp://host/x", ImageSource([]))


def test_no_window_without_a_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(InputError, match=r"cannot open a window here.*--serve"):
        open_output("display://0", ImageSource([]))


class Glass:
    """In place of OpenCV's windows."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.shown: list[np.ndarray] = []
        self.key, self.visible, self.open = -1, 1.0, 0
        monkeypatch.setattr("subprocess.run", lambda *_, **__: types.SimpleNamespace(returncode=0))
        monkeypatch.setattr(cv2, "namedWindow", lambda *_: setattr(self, "open", self.open + 1))
        monkeypatch.setattr(cv2, "destroyWindow", lambda _: setattr(self, "open", self.open - 1))
        monkeypatch.setattr(cv2, "resizeWindow", lambda *_: None)
        monkeypatch.setattr(cv2, "imshow", lambda _, image: self.shown.append(image))
        monkeypatch.setattr(cv2, "waitKey", lambda _: self.key)
        monkeypatch.setattr(cv2, "getWindowProperty", lambda *_: self.visible)


@pytest.mark.parametrize(("key", "visible"), [(ord("q"), 1.0), (27, 1.0), (-1, 0.0)])
def test_a_window_is_closed_by_key_or_mouse(monkeypatch: pytest.MonkeyPatch, key: int, visible: float) -> None:
    glass = Glass(monkeypatch)
    with Window("title") as window:
        window.idle()
        assert not glass.open, "before the first picture"
        window.write(*item())
        assert (glass.open, window.finished, len(glass.shown)) == (1, False, 1)
        glass.key, glass.visible = key, visible
        window.idle()
        assert window.finished
    assert glass.open == 0


def test_a_window_goes_with_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    glass = Glass(monkeypatch)
    with Window("title") as window:
        window.write(*item())
    window.close()
    assert glass.open == 0


@pytest.mark.parametrize("address", ["0", "127.0.0.1:0", "http://127.0.0.1:0", "[::1]:0"])
def test_a_page_is_an_output(address: str) -> None:
    seen = []
    with live(Camera(street(), fps=50)) as source:
        stream = Stream(source, Segmenter(ColorSession()))  # type: ignore[arg-type]
        try:
            page = serve_page(stream, address, "a street")
        except InputError:
            if not address.startswith("["):
                raise
            pytest.skip("needs IPv6 on loopback")

        def tick(_: object) -> None:
            with urllib.request.urlopen(page.url, timeout=5) as answer:
                seen.append(answer.status)
            stream.stop()

        stream.run(tick)
    assert seen == [200]
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(page.url, timeout=5)


@pytest.mark.parametrize("address", ["here", "127.0.0.1:99999", "127.0.0.1", "a b:80", "http://127.0.0.1:80/path"])
def test_what_is_no_address(address: str) -> None:
    with live(Camera(street(), fps=50)) as source:
        stream = Stream(source, Segmenter(ColorSession()))  # type: ignore[arg-type]
        with pytest.raises(InputError, match="expected HOST:PORT or PORT"):
            serve_page(stream, address, "")


@pytest.mark.parametrize("name", ["csi://0", "https://host/x", "udp://host:1"])
def test_what_is_no_output(name: str) -> None:
    with pytest.raises(InputError, match="expected a file, a folder, -, display://0 or rtsp"):
        open_output(name, ImageSource([]))
