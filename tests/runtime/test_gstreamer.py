"""The pipelines are pipelines: GStreamer itself runs them, with software in the place of NVIDIA's elements."""

import contextlib
import subprocess
import textwrap

import pytest

from proscale_deploy.core.errors import InputError
from proscale_deploy.runtime.streams import gstreamer
from proscale_deploy.runtime.streams.capture import open_capture
from proscale_deploy.runtime.streams.uri import CameraMode, Uri
from support.servers import SYSTEM_PYTHON, needs_rtsp_server, rtsp_server

STAND_INS = {
    "nvarguscamerasrc sensor-id=1": "videotestsrc is-live=true",
    "(memory:NVMM)": "",
    "nvv4l2decoder": "decodebin",
    "nvvidconv": "videoconvert",
}
PULL = textwrap.dedent(
    """
    import sys, gi
    gi.require_version("Gst", "1.0"); gi.require_version("GstApp", "1.0")
    from gi.repository import Gst, GstApp
    Gst.init(None)
    pipeline = Gst.parse_launch(sys.argv[1])
    sink = pipeline.iterate_sinks().next()[1]
    print(sink.get_property("drop"), sink.get_property("max-buffers"), sink.get_property("sync"))
    pipeline.set_state(Gst.State.PLAYING)
    for _ in range(3):
        sample = sink.try_pull_sample(10 * Gst.SECOND)
        caps = sample.get_caps().get_structure(0)
        size = caps.get_int("width")[1], caps.get_int("height")[1]
        print(caps.get_string("format"), *size, caps.get_fraction("framerate")[1], sample.get_buffer().get_size())
    pipeline.set_state(Gst.State.NULL)
    """
)


def pull(pipeline: str) -> list[str]:
    """What the sink gives of the pipeline on this machine."""
    for name, stand_in in STAND_INS.items():
        pipeline = pipeline.replace(name, stand_in)
    command = [SYSTEM_PYTHON, "-c", PULL, pipeline]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout.splitlines()


@needs_rtsp_server
def test_a_csi_camera() -> None:
    pipeline = gstreamer.csi_camera("1", CameraMode(320, 240, 15))
    assert "nvarguscamerasrc sensor-id=1 ! video/x-raw(memory:NVMM),width=320" in pipeline
    assert pull(pipeline) == ["True 1 False", *[f"BGR 320 240 15 {320 * 240 * 3}"] * 3]


@needs_rtsp_server
@pytest.mark.parametrize(("make", "drops"), [(gstreamer.rtsp_on_jetson, True), (gstreamer.url_in_software, False)])
def test_an_rtsp_stream(make, drops: bool) -> None:  # type: ignore[no-untyped-def]
    with rtsp_server() as (_, port):
        lines = pull(make(f"rtsp://127.0.0.1:{port}/test"))
    assert lines == [f"{drops} 1 False", *[f"BGR 160 120 25 {160 * 120 * 3}"] * 3]


def test_hardware_decodes_on_a_jetson() -> None:
    pipeline = gstreamer.rtsp_on_jetson('rtsp://u:a"b!c\\d@cam/1')
    assert pipeline.startswith('rtspsrc location="rtsp://u:a\\"b!c\\\\d@cam/1" protocols=tcp')
    assert "! nvv4l2decoder ! nvvidconv ! video/x-raw,format=BGRx ! " in pipeline
    assert pipeline.endswith("appsink drop=true max-buffers=1 sync=false")


class Closed:
    """In place of cv2.VideoCapture; remembers what it was asked to open."""

    asked: list[tuple[object, ...]]

    def __init__(self, *arguments: object) -> None:
        Closed.asked.append(arguments)

    def isOpened(self) -> bool:
        return False

    def release(self) -> None:
        pass


def test_what_is_tried_on_which_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cv2.VideoCapture", Closed)
    monkeypatch.setattr("cv2.videoio_registry.hasBackend", lambda backend: True)
    for on_jetson, expected in ((True, ["nvv4l2decoder", "rtsp://c/1", "uridecodebin"]), (False, ["rtsp", "uri"])):
        monkeypatch.setattr(gstreamer, "has_jetson_decoder", lambda answer=on_jetson: answer)
        Closed.asked = []
        with pytest.raises(InputError, match="nothing answers"):
            open_capture(Uri.parse("rtsp://c/1"))
        assert len(Closed.asked) == len(expected)
        assert all(word in str(asked[0]) for word, asked in zip(expected, Closed.asked, strict=True))
        Closed.asked = []
        with contextlib.suppress(InputError):
            open_capture(Uri.parse("csi://0"))
        assert len(Closed.asked) == on_jetson


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("csi://0", "CSI cameras need a Jetson and an OpenCV with GStreamer"),
        ("/dev/video99", "no such device; there is"),
        ("rtsp://me:secret@127.0.0.1:1/x", "cannot open rtsp://127.0.0.1:1/x: nothing answers there"),
    ],
)
def test_what_cannot_be_opened_says_why(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_capture(Uri.parse(name))
