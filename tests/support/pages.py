"""A page of a stream that a test drives by hand, and a viewer of its live picture."""

import itertools
import math
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.client import HTTPConnection

import cv2
import numpy as np
from numpy.typing import NDArray

from proscale_deploy.core.errors import InputError
from proscale_deploy.core.manifest import Manifest
from proscale_deploy.core.types import InputSpec, Result, Semantic, Task, Thresholds
from proscale_deploy.runtime.page.serve import PageServer
from proscale_deploy.runtime.streams.source import Frame
from proscale_deploy.runtime.streams.stats import Segmented, StreamStats
from support.results import CLASSES, SIZE, instances, panoptic, semantic

MANIFEST = Manifest(
    architecture="PRO-SCALE 3-3-3, ResNet-50",
    input=InputSpec(64, 96, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "RGB", 64, 96),
    classes=CLASSES,
    thresholds=Thresholds(),
    queries=10,
    precision="fp16",
    config_sha256="",
    weights_sha256="",
    version="1",
)
RESULTS: dict[Task, Callable[[], Result]] = {"panoptic": panoptic, "instance": instances, "semantic": semantic}


class HandStream:
    """What a page knows of a stream: its figures, and a switch."""

    def __init__(self) -> None:
        self.task: Task = "panoptic"
        self.now = StreamStats("opening", "", 0, 0, 0, 0.0, math.nan, {})
        self.refusal = ""

    def stats(self) -> StreamStats:
        return self.now

    def switch(self, task: Task) -> None:
        if self.refusal:
            raise InputError(self.refusal)
        self.task = task

    def run(self, page: PageServer, grey: int = 100) -> Segmented:
        """One more frame of the running stream."""
        frames = self.now.frames + 1
        stages = {"decode": 2.0, "preprocess": 1.0, "inference": 30.0, "postprocess": 4.0}
        self.now = replace(
            self.now, state="running", message="", frames=frames, frames_per_second=24.5, age=0.042, stages=stages
        )
        image = np.full((*SIZE, 3), grey, np.uint8)
        item = Segmented(
            Frame(image, "a", frames, frames, frames / 25, time.perf_counter()), RESULTS[self.task](), self.task
        )
        page.show(item)
        return item


@contextmanager
def serving(
    stream: HandStream, host: str = "127.0.0.1", title: str = "rtsp://10.0.0.7/front", port: int = 0
) -> Iterator[PageServer]:
    with PageServer((host, port), MANIFEST, title, stream.stats, stream.switch) as page:
        yield page


def noise(seed: int, height: int = 1080, width: int = 1920) -> Segmented:
    """A frame whose JPEG is large, with one class all over it."""
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    labels = Semantic(np.zeros((height, width), np.int32), np.ones((height, width), np.float32))
    return Segmented(Frame(image, "noise", seed, seed, 0.0), labels, "semantic")


def port_of(page: PageServer) -> int:
    return int(page.url.rstrip("/").rpartition(":")[2])


class Viewer:
    """Reads /live.mjpg as RFC 2046 says."""

    def __init__(self, page: PageServer) -> None:
        self._connection = HTTPConnection("127.0.0.1", port_of(page), timeout=20)
        self._connection.request("GET", "/live.mjpg?me")
        self.response = self._connection.getresponse()
        if self.response.status == 200:
            assert self.response.headers.get_param("boundary") == "frame"
            self._head()

    def _head(self) -> None:
        for line in (b"--frame\r\n", b"Content-Type: image/jpeg\r\n", b"\r\n"):
            assert self.response.readline() == line

    def next(self) -> NDArray[np.uint8] | None:
        """The next picture, with the head of the one after it; None at the end."""
        data = b""
        while not data.endswith((b"\r\n--frame\r\n", b"\r\n--frame--\r\n")):
            if not (line := self.response.readline()):
                assert data == b"", "the last one is complete"
                return None
            data += line
        if data.endswith(b"--frame\r\n"):
            assert self.response.readline() + self.response.readline() == b"Content-Type: image/jpeg\r\n\r\n"
        return decoded(data)

    def until(self, grey: int) -> int:
        """Pictures passed until the corner, where nothing is drawn, has this grey level."""
        for count in itertools.count():
            picture = self.next()
            assert picture is not None
            if abs(int(picture[2, 2].mean()) - grey) <= 3:
                return count
        raise AssertionError

    def close(self) -> None:
        self.response.close()
        self._connection.close()


def decoded(jpeg: bytes) -> NDArray[np.uint8]:
    image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return image.astype(np.uint8, copy=False)


def exchange(page: PageServer, *parts: bytes, pause: float = 0.0) -> bytes:
    """All that comes back for these bytes, until the server closes."""
    with socket.create_connection(("127.0.0.1", port_of(page)), timeout=20) as connection:
        try:
            for part in parts:
                connection.sendall(part)
                time.sleep(pause)
        except OSError:
            pass  # closed already: what was said before is still to be read
        answer = b""
        try:
            while data := connection.recv(65536):
                answer += data
        except ConnectionResetError:
            pass
        return answer


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "did not happen"
        time.sleep(0.01)
