"""Real servers on loopback: ffmpeg's HTTP, GStreamer's RTSP, and a wire between them and the client that can fail."""

import contextlib
import shutil
import socket
import subprocess
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

SYSTEM_PYTHON = "/usr/bin/python3"
_RTSP = Path(__file__).with_name("rtsp_server.py")

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg: apt install ffmpeg")


def _has_rtsp_server() -> bool:
    code = textwrap.dedent(
        """
        import gi
        for name in ("Gst", "GstApp"):
            gi.require_version(name, "1.0")
        gi.require_version("GstRtspServer", "1.0")
        from gi.repository import Gst, GstApp, GstRtspServer
        Gst.init(None)
        for elements in (["x264enc"], ["rtph264pay"], ["h264parse"], ["openh264dec", "avdec_h264"]):
            assert any(map(Gst.ElementFactory.find, elements)), elements
        """
    )
    with contextlib.suppress(OSError):
        return subprocess.run([SYSTEM_PYTHON, "-c", code], capture_output=True, check=False).returncode == 0
    return False


needs_rtsp_server = pytest.mark.skipif(
    not _has_rtsp_server(),
    reason="needs GStreamer's RTSP server: apt install python3-gi gir1.2-gst-rtsp-server-1.0 "
    "gir1.2-gst-plugins-base-1.0 gstreamer1.0-plugins-good gstreamer1.0-plugins-bad gstreamer1.0-plugins-ugly",
)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def encode(path: Path, frames: int, size: str = "160x120", options: str = "") -> Path:
    """A test picture that moves, 25 frames per second, in the format of the suffix."""
    source = f"testsrc=size={size}:rate=25"
    codec = "-c:v libx264 -preset ultrafast -tune zerolatency -g 5 -pix_fmt yuv420p" if path.suffix != ".mjpeg" else ""
    command = f"ffmpeg -y -loglevel error -f lavfi -i {source} -frames:v {frames} {codec} {options} {path}"
    subprocess.run(command.split(), check=True, timeout=30)
    return path


@contextlib.contextmanager
def ffmpeg_http(port: int, seconds: float = 60, format_: str = "mpegts") -> Iterator[subprocess.Popen[bytes]]:
    """ffmpeg's own HTTP server: one client, a test picture in real time, gone when that ends or the block does."""
    codec = "mjpeg" if format_ == "mpjpeg" else "libx264 -preset ultrafast -tune zerolatency -g 5"
    command = f"ffmpeg -loglevel quiet -re -f lavfi -i testsrc=size=160x120:rate=25 -t {seconds} -c:v {codec} "
    command += f"-f {format_} -listen 1 http://127.0.0.1:{port}/live"
    with subprocess.Popen(command.split(), stdin=subprocess.DEVNULL) as process:
        try:
            _wait_for_listener(port)
            yield process
        finally:
            process.kill()


def _wait_for_listener(port: int) -> None:
    """Without connecting: the server takes one client only."""
    deadline = time.monotonic() + 10
    wanted = f":{port:04X} 00000000:0000 0A"
    while wanted not in Path("/proc/net/tcp").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@contextlib.contextmanager
def rtsp_server(port: int = 0, pattern: str = "smpte") -> Iterator[tuple[subprocess.Popen[str], int]]:
    """GStreamer's RTSP server and its port; see :mod:`support.rtsp_server` for what is there."""
    command = [SYSTEM_PYTHON, str(_RTSP), str(port), pattern]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, int(process.stdout.readline().split()[1])
        finally:
            process.kill()


class Wire:
    """A port that sends every client the same bytes, at a pace, as an HTTP answer without a length.

    ``data`` is called per connection. The first can stand still: it stays open and sends nothing.
    """

    def __init__(self, data: Callable[[], bytes], bytes_per_second: float = 1e6) -> None:
        self._data, self._pace = data, bytes_per_second
        self.stand_still = threading.Event()
        self.broken = threading.Event()
        self.connections = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._send, args=(client, self.connections), daemon=True).start()

    def _send(self, client: socket.socket, number: int) -> None:
        with client, contextlib.suppress(OSError):
            client.recv(65536)
            client.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: video/mp2t\r\n\r\n")
            data, piece = self._data(), max(188, int(self._pace / 50) // 188 * 188)
            for start in range(0, len(data), piece):
                while self.stand_still.is_set() and number == 1:
                    time.sleep(0.01)
                if self.broken.is_set():
                    return
                client.sendall(data[start : start + piece])
                time.sleep(0.02)

    def close(self) -> None:
        self.broken.set()
        self.stand_still.clear()
        self._listener.close()

    def __enter__(self) -> "Wire":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
