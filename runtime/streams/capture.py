"""Open videos, cameras and network streams through OpenCV, with the backend that suits each."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter, sleep
from typing import Protocol
from urllib.parse import urlsplit

import cv2
import numpy as np
from numpy.typing import NDArray

from proscale_deploy.core.errors import InputError
from proscale_deploy.runtime.streams import gstreamer
from proscale_deploy.runtime.streams.uri import CameraMode, Uri

__all__ = ["OPEN_TIMEOUT", "READ_TIMEOUT", "Capture", "OpenCvCapture", "open_capture"]

OPEN_TIMEOUT, READ_TIMEOUT = 10.0, 5.0
"""Seconds after which FFmpeg gives up a network stream. While OpenCV opens one, it opens nothing else, also no file."""

_CATCH_UP = 2.0
"""Seconds: where frames of a stream in bursts are late by less, those after them come faster, until it is made up."""


class Capture(Protocol):
    """What frames are read from, one after the other. One thread only."""

    decoder: str
    """For people."""
    fps: float | None
    """As announced; None if it is not."""
    length: int | None
    """Frames announced; None where there is no end, or it is not announced."""

    def read(self) -> NDArray[np.uint8] | None:
        """The next frame (H, W, 3) BGR; None if there is none, or it cannot be decoded."""

    def release(self) -> None:
        """Close it; calling twice does no harm."""


class OpenCvCapture:
    """:class:`Capture` of an open ``cv2.VideoCapture``.

    Where the pictures of a stream change their size, OpenCV's FFmpeg goes on in the size of the first, whatever their
    shape, and nothing tells; only a stream that is opened again has its new size.

    Args:
        bursts: a live stream comes in pieces of several seconds, as HLS does: its frames are spread over that time.
    """

    def __init__(self, capture: cv2.VideoCapture, decoder: str, *, bursts: bool = False) -> None:
        self._capture, self.decoder = capture, decoder
        # Both are nonsense (negative, huge, or NaN) where the container does not say.
        length, fps = capture.get(cv2.CAP_PROP_FRAME_COUNT), capture.get(cv2.CAP_PROP_FPS)
        self.length = int(length) if 0 < length < 1e9 else None
        self.fps = fps if 0 < fps < 1000 else None
        self._interval = 1 / self.fps if bursts and self.fps and self.length is None else 0.0
        self._due = perf_counter()

    def read(self) -> NDArray[np.uint8] | None:
        try:
            decoded, image = self._capture.read()
        except cv2.error:  # a damaged picture of a camera, for one
            return None
        if self._interval:
            now = perf_counter()
            self._due = max(self._due + self._interval, now - _CATCH_UP)
            sleep(max(0.0, self._due - now))
        return image.astype(np.uint8, copy=False) if decoded and image is not None and image.size else None

    @property
    def seconds(self) -> float:
        """Of the last frame, since the start of the video."""
        return max(0.0, self._capture.get(cv2.CAP_PROP_POS_MSEC)) / 1000

    def release(self) -> None:
        self._capture.release()


def open_capture(uri: Uri) -> OpenCvCapture:
    """Open a camera or a network stream; a file too. What opens first of the backends that suit it is taken.

    Raises:
        InputError: it cannot be opened.
    """
    for decoder, open_ in _ways(uri):
        capture = open_()
        if capture.isOpened():
            return OpenCvCapture(capture, decoder, bursts=urlsplit(uri.target).path.endswith(".m3u8"))
        capture.release()
    raise InputError(f"cannot open {uri}: {_reason(uri)}")


def _ways(uri: Uri) -> Iterator[tuple[str, Callable[[], cv2.VideoCapture]]]:
    """(what decodes, how to open it), best first."""
    target = uri.target
    if uri.kind == "v4l2":
        yield "V4L2", lambda: _camera(target, uri.mode)
    elif uri.kind == "csi":
        if gstreamer.has_jetson_decoder():
            yield "GStreamer (nvarguscamerasrc)", lambda: _gstreamer(gstreamer.csi_camera(target, uri.mode))
    elif uri.kind == "network":
        if uri.scheme in ("rtsp", "rtsps") and gstreamer.has_jetson_decoder():
            yield "GStreamer (nvv4l2decoder)", lambda: _gstreamer(gstreamer.rtsp_on_jetson(target))
        if cv2.videoio_registry.hasBackend(cv2.CAP_FFMPEG):
            yield "FFmpeg", lambda: _ffmpeg(target)
        if gstreamer.has_gstreamer():
            yield "GStreamer", lambda: _gstreamer(gstreamer.url_in_software(target))
    else:
        yield "OpenCV", lambda: cv2.VideoCapture(target)


def _camera(device: str, mode: CameraMode) -> cv2.VideoCapture:
    capture = cv2.VideoCapture(device, cv2.CAP_V4L2)
    if mode.width or mode.height or mode.fps:
        # USB carries large pictures at full rate only when they are compressed.
        capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG"))
    for name, value in (("WIDTH", mode.width), ("HEIGHT", mode.height)):
        if value:
            capture.set(getattr(cv2, f"CAP_PROP_FRAME_{name}"), value)
    if mode.fps:
        capture.set(cv2.CAP_PROP_FPS, mode.fps)
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
    return capture


def _ffmpeg(url: str) -> cv2.VideoCapture:
    milliseconds = (round(1000 * OPEN_TIMEOUT), round(1000 * READ_TIMEOUT))
    names = (cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, cv2.CAP_PROP_READ_TIMEOUT_MSEC)
    options = [number for pair in zip(names, milliseconds, strict=True) for number in pair]
    return cv2.VideoCapture(url, cv2.CAP_FFMPEG, options)


def _gstreamer(pipeline: str) -> cv2.VideoCapture:
    return cv2.VideoCapture(pipeline, cv2.CAP_GSTREAMER)


def _reason(uri: Uri) -> str:
    if uri.kind == "v4l2":
        device = Path(uri.target)
        if not device.exists():
            found = ", ".join(sorted(map(str, Path("/dev").glob("video[0-9]*"))))
            return f"no such device; there is {found or 'no camera here'}"
        if not os.access(device, os.R_OK | os.W_OK):
            return "no permission; join the group of cameras and log in again: sudo usermod -aG video $USER"
        return "it gives no pictures (see v4l2-ctl --list-formats), or another program uses it"
    if uri.kind == "csi":
        if gstreamer.has_jetson_decoder():
            return "no such camera, or it does not have this size and rate; see the log of nvargus-daemon"
        return (
            "CSI cameras need a Jetson and an OpenCV with GStreamer, which pip's opencv-python is not: docs/jetson.md "
            "has the commands for JetPack's"
        )
    if uri.kind == "network":
        return "nothing answers there, the address or the password is wrong, or it is no video that OpenCV can decode"
    return "no video that OpenCV can decode"
