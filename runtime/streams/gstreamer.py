"""GStreamer pipelines for OpenCV's ``VideoCapture``: all strings are made here.

On a Jetson decoding by its own hardware, and its CSI cameras, are reached through GStreamer only. Frames are converted
to BGRx by the hardware (``nvvidconv``), then to BGR by the CPU, which OpenCV asks for. The sink holds one frame, of a
camera the newest, and does not wait for the time it is due.
"""

from functools import cache

import cv2

from proscale_deploy.core.machine import jetson
from proscale_deploy.runtime.streams.uri import CameraMode

__all__ = ["csi_camera", "has_gstreamer", "has_jetson_decoder", "rtsp_on_jetson", "url_in_software"]

_EVERY = "video/x-raw,format=BGR ! appsink max-buffers=1 sync=false"
_NEWEST = _EVERY.replace("appsink", "appsink drop=true")
_FROM_DEVICE = f"nvvidconv ! video/x-raw,format=BGRx ! videoconvert ! {_NEWEST}"

_JITTER_MS = 100
"""How long late and swapped RTP packets are waited for; rtspsrc's own 2000 would be the least age of every frame."""


def has_gstreamer() -> bool:
    """Whether this OpenCV was built with GStreamer; pip's ``opencv-python`` is not."""
    return bool(cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER))


@cache
def has_jetson_decoder() -> bool:
    return jetson() is not None and has_gstreamer()


def csi_camera(sensor: str, mode: CameraMode) -> str:
    """A camera on the Jetson's board, by default at 1280x720 and 30 frames per second, which most sensors have."""
    width, height, fps = mode.width or 1280, mode.height or 720, mode.fps or 30
    caps = f"video/x-raw(memory:NVMM),width={width},height={height},framerate={fps}/1"
    return f"nvarguscamerasrc sensor-id={sensor} ! {caps} ! {_FROM_DEVICE}"


def rtsp_on_jetson(url: str) -> str:
    """Whatever codec the stream has, unpacked by ``parsebin`` and decoded by the Jetson's hardware."""
    source = f"rtspsrc location={_quoted(url)} protocols=tcp latency={_JITTER_MS} drop-on-latency=true"
    return f"{source} ! application/x-rtp,media=video ! parsebin ! nvv4l2decoder ! {_FROM_DEVICE}"


def url_in_software(url: str) -> str:
    """For an OpenCV that has GStreamer and no FFmpeg. What it names may have an end, so that no frame is left out."""
    return f"uridecodebin uri={_quoted(url)} ! videoconvert ! {_EVERY}"


def _quoted(text: str) -> str:
    """As gst-launch reads it: a URL may hold ``!`` and spaces."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
