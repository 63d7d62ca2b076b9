"""Inputs and outputs by their names."""

from pathlib import Path

import pytest

from proscale_deploy.core.errors import InputError
from proscale_deploy.runtime.streams.uri import CameraMode, Uri


@pytest.mark.parametrize(
    ("text", "kind", "target", "stem"),
    [
        ("-", "pipe", "-", "stdin"),
        ("/dev/video0", "v4l2", "/dev/video0", "video0"),
        ("v4l2:///dev/video2", "v4l2", "/dev/video2", "video2"),
        ("/dev/v4l/by-id/usb-cam", "file", "/dev/v4l/by-id/usb-cam", "usb-cam"),
        ("csi://1", "csi", "1", "csi1"),
        ("display://0", "display", "0", "0"),
        ("rtsp://10.0.0.7:554/stream1", "network", "rtsp://10.0.0.7:554/stream1", "10.0.0.7_554_stream1"),
        ("HTTP://host/a/live.m3u8?token=1", "network", "http://host/a/live.m3u8?token=1", "host_a_live"),
        ("rtsp://me:pass@camera", "network", "rtsp://me:pass@camera", "camera"),
        ("udp://@:5000", "network", "udp://@:5000", "5000"),
        ("clip.mp4", "file", "clip.mp4", "clip"),
        ("file:///data/a%20b.mp4", "file", "/data/a b.mp4", "a b"),
        ("file://clip.mp4", "file", "clip.mp4", "clip"),
        ("images/*.png", "file", "images/*.png", "*"),
        ("odd:/name.png", "file", "odd:/name.png", "name"),
    ],
)
def test_kinds(text: str, kind: str, target: str, stem: str) -> None:
    uri = Uri.parse(text)
    assert (uri.kind, uri.target, uri.stem) == (kind, target, stem)


def test_what_pathlib_made_of_an_address_is_one_still() -> None:
    assert Uri.parse(Path("rtsp://camera/1")).target == "rtsp://camera/1"


def test_what_a_camera_is_asked_for() -> None:
    assert Uri.parse("csi://0?width=1920&height=1080&fps=60").mode == CameraMode(1920, 1080, 60)
    assert Uri.parse("/dev/video0?width=640").mode == CameraMode(640)
    assert Uri.parse("/dev/video0?width=640").target == "/dev/video0"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gopher://x", "expected a path, - or one of v4l2, csi, display, file, rtsp"),
        ("ftp://me:secret@x", "^cannot use ftp://: expected a path"),
        ("rtsp://[::1/a", "^rtsp:// before no address: expected HOST/PATH"),
        ("rtsp://me:secret#1@camera/1", "USER:PASSWORD@HOST/PATH, with %23"),
        ("csi://front", "number of a CSI camera"),
        ("csi://0?size=5", "expected width, height and fps"),
        ("/dev/video0?fps=0", "expected width, height and fps"),
        ("/dev/video0?fps=", "expected width, height and fps"),
    ],
)
def test_what_is_none(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        Uri.parse(text)
    assert "secret" not in str(caught.value)


def test_secrets_are_not_shown() -> None:
    uri = Uri.parse("rtsp://user:pass%40word@camera:554/a/b?token=secret#x")
    assert str(uri) == "rtsp://camera:554/a/b"
    assert uri.target == "rtsp://user:pass%40word@camera:554/a/b?token=secret#x"
    assert str(Uri.parse("rtsp://user:p@ss@camera/1")) == "rtsp://camera/1"
