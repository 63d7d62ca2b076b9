"""Live sources on real servers: ffmpeg's, GStreamer's, and a wire that can be cut, stand still, and flip bytes."""

import functools
import http.server
import itertools
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from proscale_deploy.core.errors import InputError
from proscale_deploy.runtime.streams import capture
from proscale_deploy.runtime.streams.capture import open_capture
from proscale_deploy.runtime.streams.inputs import open_input
from proscale_deploy.runtime.streams.live import LiveSource, Patience
from proscale_deploy.runtime.streams.source import Frame, Source
from proscale_deploy.runtime.streams.uri import Uri
from support.servers import Wire, encode, ffmpeg_http, free_port, needs_ffmpeg, needs_rtsp_server, rtsp_server

PATIENCE = Patience(opening=5, stall=1, first_retry=0.1, last_retry=0.3)


def network(address: str) -> LiveSource:
    uri = Uri.parse(address)
    return LiveSource(uri, lambda: open_capture(uri), PATIENCE)


def until(source: Source, enough: Callable[[Frame], bool]) -> list[Frame]:
    """Frames up to the first that is enough."""
    frames, deadline = [], time.monotonic() + 30
    for frame in source:
        frames.append(frame)
        if enough(frame):
            break
        assert time.monotonic() < deadline, "this goes on for ever"
    return frames


@needs_ffmpeg
@pytest.mark.parametrize("format_", ["mpegts", "mpjpeg"])
def test_http_from_ffmpeg_is_cut_and_restored(format_: str) -> None:
    port = free_port()
    with ffmpeg_http(port, format_=format_) as server:
        source = open_input(f"http://127.0.0.1:{port}/live")
        assert isinstance(source, LiveSource)
        source._patience = PATIENCE
        assert source.description.endswith("/live: live, 160x120 at 25 frames per second, decoded by FFmpeg")
        frames = iter(source)
        before = list(itertools.islice(frames, 5))
        server.kill()
        server.wait()
        with ffmpeg_http(port, format_=format_):
            after = until(source, lambda _: source.reconnects == 1)
    source.close()
    assert {frame.image.shape for frame in (*before, *after)} == {(120, 160, 3)}


@needs_rtsp_server
def test_rtsp_from_gstreamer_is_cut_and_restored() -> None:
    with rtsp_server(pattern="red") as (server, port):
        source = network(f"rtsp://127.0.0.1:{port}/test")
        assert next(iter(source)).image[60, 80].argmax() == 2
        server.kill()
        server.wait()
        with rtsp_server(port, pattern="blue"):
            frame = until(source, lambda _: source.reconnects == 1)[-1]
            assert frame.image[60, 80].argmax() == 0
            assert source.interruption == ""
        source.close()


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Four seconds of MPEG-TS."""
    return encode(tmp_path_factory.mktemp("stream") / "a.ts", 100).read_bytes()


@needs_ffmpeg
def test_a_connection_that_stands_still_is_left_for_another(stream: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server keeps it open and sends nothing."""
    monkeypatch.setattr(capture, "READ_TIMEOUT", 30.0)
    with Wire(lambda: stream, 60_000) as wire:
        source = network(f"http://127.0.0.1:{wire.port}/live.ts")
        frames = iter(source)
        next(frames)
        wire.stand_still.set()
        until(source, lambda _: source.reconnects == 1)
        assert wire.connections == 2
        assert source.interruption == ""
        wire.stand_still.clear()
        source.close()


@needs_ffmpeg
def test_bytes_that_are_flipped_on_the_way_are_survived(stream: bytes) -> None:
    damaged, rng = bytearray(stream), np.random.default_rng(0)
    for index in rng.integers(len(stream) // 4, len(stream), 40):
        damaged[index] ^= 0xFF
    with Wire(lambda: bytes(damaged), 40_000) as wire:
        source = network(f"http://127.0.0.1:{wire.port}/live.ts")
        frames = until(source, lambda frame: frame.timestamp > 2.5 or bool(source.reconnects))
        source.close()
    assert len(frames) > 5
    assert {frame.image.shape for frame in frames} == {(120, 160, 3)}


@needs_ffmpeg
def test_another_size_in_mid_stream_is_scaled_to_the_first(tmp_path: Path) -> None:
    data = encode(tmp_path / "a.ts", 50).read_bytes() + encode(tmp_path / "b.ts", 50, "320x240").read_bytes()
    with Wire(lambda: data, 100_000) as wire:
        source = network(f"http://127.0.0.1:{wire.port}/live.ts")
        first, *_, last = until(source, lambda frame: bool(source.reconnects))[:-1]
        source.close()
    assert first.image.shape == last.image.shape == (120, 160, 3)
    # A second of the test picture moves few of its pixels, and of twice the size each line is sharper.
    assert np.median(np.abs(first.image.astype(int) - last.image)) < 8


@needs_ffmpeg
def test_another_size_after_it_was_lost(tmp_path: Path) -> None:
    sizes = iter(["160x120", "320x200", "96x96", "96x96"])

    def data() -> bytes:
        return encode(tmp_path / "part.ts", 20, next(sizes)).read_bytes()

    with Wire(data, 200_000) as wire:
        source = network(f"http://127.0.0.1:{wire.port}/live.ts")
        frames = until(source, lambda frame: frame.image.shape == (96, 96, 3))
        source.close()
    found = [shape for shape, _ in itertools.groupby(frame.image.shape[:2] for frame in frames)]
    assert found == [(120, 160), (200, 320), (96, 96)]


@pytest.fixture
def file_server(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """A folder, and the port on which it can be fetched."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(tmp_path))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield tmp_path, server.server_port
        server.shutdown()
        thread.join()


@needs_ffmpeg
def test_a_video_with_an_end_is_read_to_it(file_server: tuple[Path, int]) -> None:
    folder, port = file_server
    encode(folder / "clip.mp4", 30)
    with open_input(f"http://127.0.0.1:{port}/clip.mp4") as source:
        assert not source.live
        assert (source.length, source.fps) == (30, 25)
        assert [frame.name for frame in source][29] == f"127.0.0.1_{port}_clip_000029"
        assert source.warnings == []


@needs_ffmpeg
def test_hls_that_comes_in_bursts_is_spread_over_time(file_server: tuple[Path, int]) -> None:
    """Two seconds are there at once, and then nothing: the playlist never grows, and does not end."""
    folder, port = file_server
    encode(folder / "live.m3u8", 50, options="-f hls -hls_time 1 -hls_list_size 0")
    playlist = (folder / "live.m3u8").read_text()
    (folder / "live.m3u8").write_text(playlist.replace("#EXT-X-ENDLIST\n", ""))
    source = open_input(f"http://127.0.0.1:{port}/live.m3u8")
    assert source.live
    frames = until(source, lambda frame: frame.index == 30)
    source.close()
    assert frames[30].captured - frames[0].captured > 20 / 25
    (folder / "live.m3u8").write_text(playlist)
    with open_input(f"http://127.0.0.1:{port}/live.m3u8") as ended:
        assert not ended.live
        assert len(list(ended)) == 50


def test_an_image_is_fetched_and_read_as_one_from_a_file(file_server: tuple[Path, int]) -> None:
    folder, port = file_server
    image = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    cv2.imwrite(str(folder / "a b.png"), image)
    with open_input(f"http://127.0.0.1:{port}/a%20b.png?x=1") as source:
        (frame,) = source
        assert source.length == 1
    np.testing.assert_array_equal(frame.image, image)
    assert frame.name == "a b"
    with pytest.raises(InputError, match=r"cannot read http://127.*/none.png: File not found") as caught:
        open_input(f"http://127.0.0.1:{port}/none.png?token=secret")
    assert "secret" not in str(caught.value)


class Guarded(http.server.BaseHTTPRequestHandler):
    """A picture for who knows the password; one that is cut off for all."""

    image = cv2.imencode(".png", np.full((8, 8, 3), 77, np.uint8))[1].tobytes()

    def do_GET(self) -> None:
        if self.path != "/cut.png" and self.headers["Authorization"] != f"Basic {b64encode(b'me:p@ss').decode()}":
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="camera"')
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.image) + (self.path == "/cut.png")))
        self.end_headers()
        self.wfile.write(self.image)

    def log_message(self, *_: object) -> None:
        pass


def test_an_image_behind_a_password() -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Guarded) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            with open_input(f"http://me:p%40ss@127.0.0.1:{server.server_port}/now.png") as source:
                assert [int(frame.image[0, 0, 0]) for frame in source] == [77]
            for address, reason in [("me:secret@", "now.png: Unauthorized"), ("", "cut.png: IncompleteRead")]:
                path = reason.partition(":")[0]
                with pytest.raises(InputError, match=reason) as caught:
                    open_input(f"http://{address}127.0.0.1:{server.server_port}/{path}")
                assert "secret" not in str(caught.value)
        finally:
            server.shutdown()
            thread.join()


def test_nobody_there() -> None:
    with pytest.raises(InputError, match=r"cannot open http://127.0.0.1:\d+/live: nothing answers"):
        open_input(f"http://127.0.0.1:{free_port()}/live")


def test_a_server_that_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture, "OPEN_TIMEOUT", 0.5)
    with Wire(lambda: b"") as wire:
        wire.stand_still.set()
        start = time.monotonic()
        with pytest.raises(InputError):
            open_input(f"http://127.0.0.1:{wire.port}/live.ts")
        assert time.monotonic() - start < 5
