"""The page's server: what it answers, what it refuses, and that no viewer can hold up the stream."""

import json
import re
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.client import HTTPConnection, HTTPResponse
from typing import Any

import numpy as np
import pytest

from proscale_deploy.core.errors import InputError
from proscale_deploy.runtime.draw import class_shares, overlay
from proscale_deploy.runtime.page import picture, serve, web
from proscale_deploy.runtime.page.exchange import Exchange
from proscale_deploy.runtime.page.serve import PageServer
from support.pages import MANIFEST, HandStream, Viewer, decoded, exchange, noise, port_of, serving, wait_until
from support.results import CLASSES


@pytest.fixture(autouse=True)
def short_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is closed notices it at its next tick; a hundred tests need not wait that long."""
    monkeypatch.setattr(web, "_TICK", 0.02)


@pytest.fixture
def stream() -> HandStream:
    return HandStream()


@pytest.fixture
def page(stream: HandStream) -> Iterator[PageServer]:
    with serving(stream) as server:
        yield server
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("page-")] == []


def get(page: PageServer, path: str, method: str = "GET", **headers: str) -> tuple[HTTPResponse, bytes]:
    connection = HTTPConnection("127.0.0.1", port_of(page), timeout=20)
    connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response, body


def status(page: PageServer) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(get(page, "/api/status")[1], parse_constant=refuse)


def change(page: PageServer, settings: object, **headers: str) -> tuple[int, Any]:
    connection = HTTPConnection("127.0.0.1", port_of(page), timeout=20)
    every = {"Content-Type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request("POST", "/api/settings", json.dumps(settings), every)
    response = connection.getresponse()
    answer = json.loads(response.read())
    connection.close()
    return response.status, answer


# What it answers


@pytest.mark.parametrize(
    ("path", "content_type", "part"),
    [
        ("/", "text/html; charset=utf-8", b'id="legend"'),
        ("/?again", "text/html; charset=utf-8", b'id="legend"'),
        ("/page.css", "text/css; charset=utf-8", b"prefers-color-scheme"),
        ("/page.js", "text/javascript; charset=utf-8", b"/api/status"),
        ("/icon.svg", "image/svg+xml; charset=utf-8", b"<svg"),
    ],
)
def test_files_of_the_page(page: PageServer, path: str, content_type: str, part: bytes) -> None:
    response, body = get(page, path)
    assert (response.status, response.headers["Content-Type"]) == (200, content_type)
    assert part in body
    assert response.headers["Content-Security-Policy"].startswith("default-src 'self';")
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert "Access-Control-Allow-Origin" not in response.headers
    head, nothing = get(page, path, "HEAD")
    assert (head.headers["Content-Length"], nothing) == (str(len(body)), b"")


def test_nothing_of_the_page_comes_from_elsewhere(page: PageServer) -> None:
    for path in ("/", "/page.css", "/page.js", "/icon.svg"):
        text = get(page, path)[1].decode().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?:|//\w+\.|@import|url\(|style=|<style|\son\w+=", text)


def test_status_before_the_first_frame(page: PageServer) -> None:
    found = status(page)
    assert (found["state"], found["age_ms"], found["last_frame_s"], found["task"]) == ("opening", None, None, None)
    assert (found["shares"], found["frame_size"], found["viewers"]) == ([], None, [])


def test_status_of_a_running_stream(page: PageServer, stream: HandStream) -> None:
    item = stream.run(page)
    found = status(page)
    assert found["shares"] == [[s.class_id, s.share, s.count] for s in class_shares(item.result, CLASSES)]
    assert (found["state"], found["fps"], found["age_ms"], found["frames"]) == ("running", 24.5, 42.0, 1)
    assert found["stages_ms"] == [["decode", 2.0], ["preprocess", 1.0], ["inference", 30.0], ["postprocess", 4.0]]
    assert (found["task"], found["opacity"], found["frame_size"]) == ("panoptic", 0.5, [60, 80])
    assert found["last_frame_s"] >= 0


def test_history_has_gaps_where_no_frames_came(
    page: PageServer, stream: HandStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "_SAMPLE", 0.0)
    wait_until(lambda: len(status(page)["history"]["fps"]) > 1)
    stream.run(page)
    wait_until(lambda: 42.0 in status(page)["history"]["age_ms"])
    stream.now = replace(stream.now, state="reconnecting", frames_per_second=0.0)
    wait_until(lambda: status(page)["history"]["age_ms"][-1] is None)
    history = status(page)["history"]
    assert history["age_ms"][0] is None
    assert {0.0, 24.5} == set(history["fps"])


def test_model(page: PageServer) -> None:
    found = json.loads(get(page, "/api/model")[1])
    assert found["classes"][2] == {"name": "car", "is_thing": True, "color": "#00008e"}
    assert (found["tasks"], found["precision"]) == (["panoptic", "instance", "semantic"], "fp16")


def test_passwords_of_cameras_are_not_shown(stream: HandStream) -> None:
    address = "rtsp://admin:p@ss/w0rd@10.0.0.7:554/front?user=admin&password=w0rd"
    with serving(stream, title=address) as page:
        stream.run(page)
        stream.now = replace(stream.now, state="reconnecting", message=f"{address} is lost: no frame for 5 s")
        everything = b"".join(get(page, path)[1] for path in ("/api/model", "/api/status"))
        name = get(page, "/frame.jpg")[0].headers["Content-Disposition"]
        assert b"w0rd" not in everything + name.encode()
        assert json.loads(get(page, "/api/model")[1])["title"] == "rtsp://10.0.0.7:554/front"
        assert status(page)["message"].endswith(" is lost: no frame for 5 s")


def test_an_address_may_have_one_slash(stream: HandStream) -> None:
    """As sources may, for pathlib makes one of two."""
    with serving(stream, title="rtsp:/admin:w0rd@10.0.0.7/front?w0rd") as page:
        assert json.loads(get(page, "/api/model")[1])["title"] == "rtsp:/10.0.0.7/front"


def test_several_requests_on_one_connection(page: PageServer) -> None:
    connection = HTTPConnection("127.0.0.1", port_of(page), timeout=20)
    connection.connect()
    first = connection.sock
    for path in ("/", "/api/model", "/api/status"):
        connection.request("GET", path)
        assert connection.getresponse().read()
        assert connection.sock is first
    connection.close()


def test_the_body_of_a_get_is_no_request(page: PageServer, stream: HandStream) -> None:
    """Behind a proxy that lets only GET pass, it would be one in disguise."""
    inner = post(b'{"opacity":1}', JSON, b"Content-Length: 13")
    for length in (b"Content-Length: %d" % len(inner), b"Transfer-Encoding: chunked"):
        answer = exchange(page, b"GET /icon.svg HTTP/1.1\r\nHost: localhost\r\n" + length + b"\r\n\r\n" + inner)
        assert answer.count(b"HTTP/1.1 200 ") == 1
        assert answer.endswith(b"</svg>\n")
        assert status(page)["opacity"] == 0.5


def test_a_viewer_may_wait_longer_for_the_first_frame_than_a_request_may_take(
    stream: HandStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Exchange, "timeout", 0.2)
    with serving(stream) as page:
        late = threading.Timer(1.0, lambda: stream.run(page))
        late.start()
        viewer = Viewer(page)
        assert viewer.next() is not None
        viewer.close()
        late.join()


# Switches


def test_switching_the_task(page: PageServer, stream: HandStream) -> None:
    stream.run(page)
    assert change(page, {"task": "semantic"}) == (200, {"task": "semantic", "opacity": 0.5})
    assert stream.task == "semantic"
    assert status(page)["task"] == "semantic", "before its first frame too"
    stream.run(page)
    stream.task = "instance"  # by somebody else
    stream.run(page)
    assert status(page)["task"] == "instance"


def test_a_switch_that_the_stream_refuses(page: PageServer, stream: HandStream) -> None:
    stream.refusal = "the model was not trained for it"
    assert change(page, {"task": "instance"}) == (409, {"error": stream.refusal})
    assert status(page)["task"] is None


@pytest.mark.parametrize(
    "settings",
    [
        {},
        [],
        1,
        None,
        {"task": "depth"},
        {"task": ["panoptic"]},
        {"opacity": 1.5},
        {"opacity": -0.1},
        {"opacity": "1"},
        {"opacity": True},
        {"opacity": None},
        {"opacity": float("nan")},
        {"opacity": 1, "more": 2},
        {"opacity": 1, "task": "depth"},
    ],
)
def test_settings_that_make_no_sense(page: PageServer, stream: HandStream, settings: object) -> None:
    stream.run(page)
    assert change(page, settings)[0] == 400
    assert (stream.task, status(page)["opacity"]) == ("panoptic", 0.5)


# Pictures


def test_the_live_picture_is_the_overlay(page: PageServer, stream: HandStream) -> None:
    item = stream.run(page)
    viewer = Viewer(page)
    first = viewer.next()
    expected = overlay(item.frame.image, item.result, CLASSES)
    assert first is not None
    assert np.abs(first.astype(int) - expected).mean() < 6
    stream.run(page, grey=200)
    viewer.until(200)
    viewer.close()


def test_a_new_opacity_is_seen_while_the_stream_stands_still(page: PageServer, stream: HandStream) -> None:
    item = stream.run(page)
    viewer = Viewer(page)
    assert viewer.next() is not None
    assert change(page, {"opacity": 1})[1]["opacity"] == 1
    second = viewer.next()
    assert second is not None
    expected = overlay(item.frame.image, item.result, CLASSES, 1.0)
    assert np.abs(second.astype(int) - expected).mean() < 6
    viewer.close()


def test_the_still_has_the_size_of_the_frame(page: PageServer) -> None:
    item = noise(0, 1200, 2400)
    page.show(item)
    response, jpeg = get(page, "/frame.jpg")
    assert decoded(jpeg).shape == (1200, 2400, 3)
    name = response.headers["Content-Disposition"]
    assert re.fullmatch(r'attachment; filename="front_\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d\.\d{3}\.jpg"', name)
    viewer = Viewer(page)
    live = viewer.next()
    assert live is not None
    assert live.shape == (960, 1920, 3)
    viewer.close()


def test_no_picture_before_the_first_frame(page: PageServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "FIRST_SECONDS", 0.05)
    for path in ("/live.mjpg", "/frame.jpg"):
        response, body = get(page, path)
        assert (response.status, json.loads(body)) == (503, {"error": "no frame yet"})
        assert response.headers["Retry-After"] == "1"


def test_a_viewer_may_come_before_the_first_frame(page: PageServer, stream: HandStream) -> None:
    came = threading.Event()

    def first_frame() -> None:
        wait_until(lambda: len(status(page)["viewers"]) == 1)
        stream.run(page)
        came.set()

    threading.Thread(target=first_frame).start()
    viewer = Viewer(page)
    assert viewer.next() is not None
    assert came.wait(20)
    viewer.close()


def test_a_frame_is_drawn_once_for_all_viewers_and_not_for_none(
    page: PageServer, stream: HandStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[int] = []

    def counting(image: np.ndarray, *rest: Any) -> Any:
        drawn.append(int(image[0, 0, 0]))
        return overlay(image, *rest)

    monkeypatch.setattr(picture, "overlay", counting)
    for _ in range(30):
        stream.run(page)
    assert drawn == []
    viewers = [Viewer(page) for _ in range(4)]
    for viewer in viewers:
        viewer.until(100)
    stream.run(page, grey=180)
    for viewer in viewers:
        viewer.until(180)
        viewer.close()
    assert drawn == [100, 180]
    for _ in range(3):
        get(page, "/frame.jpg")
    assert drawn == [100, 180, 180], "the still has a size of its own"


def test_a_frame_that_cannot_be_drawn_is_passed_over(
    page: PageServer, stream: HandStream, caplog: pytest.LogCaptureFixture
) -> None:
    item = stream.run(page)
    wrong = replace(item, frame=replace(item.frame, image=item.frame.image[1:], name="odd"))

    def first_frame() -> None:
        wait_until(lambda: "drawing odd for the page failed" in caplog.text)
        stream.run(page, grey=150)

    page.show(wrong)
    watching = threading.Thread(target=first_frame)
    watching.start()
    viewer = Viewer(page)
    viewer.until(150)
    watching.join()
    caplog.clear()
    page.show(wrong)
    wait_until(lambda: "drawing odd for the page failed" in caplog.text)
    stream.run(page, grey=50)
    assert viewer.until(50) == 0
    viewer.close()


def test_who_comes_later_does_not_see_what_was_drawn_for_others(page: PageServer, stream: HandStream) -> None:
    stream.run(page, grey=50)
    viewer = Viewer(page)
    viewer.until(50)
    viewer.close()
    wait_until(lambda: page.show(noise(0, 60, 80)) or not status(page)["viewers"])
    stream.run(page, grey=150)
    viewer = Viewer(page)
    assert viewer.until(150) == 0
    viewer.close()


# Viewers that are slow, dead, or many


def test_showing_never_waits_for_the_painter(
    page: PageServer, stream: HandStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def stuck(image: np.ndarray, *rest: Any) -> Any:
        entered.set()
        assert go_on.wait(20)
        return overlay(image, *rest)

    monkeypatch.setattr(picture, "overlay", stuck)
    stream.run(page, grey=100)

    def watch() -> None:
        viewer = Viewer(page)
        viewer.until(200)
        viewer.close()

    watching = threading.Thread(target=watch)
    watching.start()
    assert entered.wait(20)
    for _ in range(100):
        stream.run(page, grey=150)
    stream.run(page, grey=200)
    go_on.set()
    watching.join(20)
    assert not watching.is_alive(), "skipped to the newest"


def test_a_viewer_that_does_not_read_is_cut_off_and_hinders_nobody(
    page: PageServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proscale_deploy.runtime.page.exchange.SEND_SECONDS", 0.5)
    page.show(noise(0))
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(("127.0.0.1", port_of(page)))
        deaf.sendall(b"GET /live.mjpg?deaf HTTP/1.1\r\nHost: localhost\r\n\r\n")
        wait_until(lambda: status(page)["viewers"] == ["deaf"])
        viewer = Viewer(page)
        for seed in range(1, 4):
            page.show(noise(seed))
            assert viewer.next() is not None
        wait_until(lambda: status(page)["viewers"] == ["me"])
        page.show(noise(9))
        assert viewer.next() is not None
        viewer.close()


def test_a_viewer_that_dies_is_forgotten(page: PageServer, stream: HandStream, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while no new frame comes: the last one is sent again."""
    monkeypatch.setattr(serve, "REPEAT_SECONDS", 0.05)
    stream.run(page)
    dying = socket.create_connection(("127.0.0.1", port_of(page)))
    dying.sendall(b"GET /live.mjpg HTTP/1.1\r\nHost: localhost\r\n\r\n")
    wait_until(lambda: len(status(page)["viewers"]) == 1)
    dying.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    dying.close()  # with a reset
    wait_until(lambda: status(page)["viewers"] == [])


def test_too_many_viewers(page: PageServer, stream: HandStream) -> None:
    stream.run(page)
    viewers = [Viewer(page) for _ in range(serve.VIEWERS)]
    late = Viewer(page)
    assert late.response.status == 503
    assert json.loads(late.response.read())["error"].startswith("16 viewers")
    assert all(viewer.next() is not None for viewer in viewers)
    viewers.pop().close()
    stream.run(page, grey=77)
    stream.run(page, grey=78)
    wait_until(lambda: bool(stream.run(page)) and len(status(page)["viewers"]) < serve.VIEWERS)
    last = Viewer(page)
    assert last.next() is not None
    for viewer in [*viewers, late, last]:
        viewer.close()


def test_too_many_connections(page: PageServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "CONNECTIONS", 3)
    idle = [socket.create_connection(("127.0.0.1", port_of(page)), timeout=20) for _ in range(5)]
    wait_until(lambda: sum(thread.name == "page-client" for thread in threading.enumerate()) == 5)
    response, body = get(page, "/")
    assert (response.status, response.headers["Retry-After"]) == (503, "5")
    assert b"3 connections are open already" in body
    wait_until(lambda: sum(thread.name == "page-client" for thread in threading.enumerate()) == 5)
    idle.append(socket.create_connection(("127.0.0.1", port_of(page)), timeout=20))
    beyond = socket.create_connection(("127.0.0.1", port_of(page)), timeout=20)
    assert beyond.recv(1) == b""
    for connection in [*idle, beyond]:
        connection.close()
    wait_until(lambda: not any(thread.name == "page-client" for thread in threading.enumerate()))
    assert get(page, "/")[0].status == 200


def test_a_thread_that_cannot_be_started(
    page: PageServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The connection is closed, and holds no place."""

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        assert exchange(page, b"") == b""
    assert "can't start new thread" in caplog.text
    assert page._server._connections == {}
    assert get(page, "/")[0].status == 200


@pytest.mark.parametrize(
    "start", [b"", b"GET / HTTP/1.1\r\nHost: localhost\r\n", b"POST /api/settings HTTP/1.1\r\nContent-Length: 90\r\n"]
)
def test_a_request_that_trickles_in_is_cut_off(
    stream: HandStream, monkeypatch: pytest.MonkeyPatch, start: bytes
) -> None:
    monkeypatch.setattr(Exchange, "timeout", 0.5)
    with serving(stream) as page:
        assert exchange(page, start, *[b"a"] * 60, pause=0.05) == b""


def test_closing_ends_everything(stream: HandStream) -> None:
    with serving(stream) as page:
        stream.run(page)
        viewers = [Viewer(page) for _ in range(3)]
        idle = socket.create_connection(("127.0.0.1", port_of(page)), timeout=20)
        idle.sendall(b"GET / HTTP/1.1\r\nHo")
        port = port_of(page)
        wait_until(lambda: len(status(page)["viewers"]) == 3)
    page.close()  # once more does no harm
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("page-")] == []
    page.show(noise(0, 8, 8))
    for viewer in viewers:
        while viewer.next() is not None:
            pass
        viewer.close()
    assert idle.recv(100) == b""
    idle.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


# What it refuses


def post(body: bytes, *headers: bytes) -> bytes:
    return b"\r\n".join([b"POST /api/settings HTTP/1.1", b"Host: localhost", *headers, b"", body])


JSON = b"Content-Type: application/json"


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (b"GET /../serve.py HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"GET /page/../../serve.py HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"GET /%2e%2e/serve.py HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"GET //etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"GET file:///etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"GET http://localhost/ HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"GET /page.css/ HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"GET /page.css%00 HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"GET /index.html HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}", 405),
        (b"DELETE /frame.jpg HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
        (b"OPTIONS /api/settings HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\n\r\n", 405),
        (b"GET /api/settings HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
        (b"BREW / HTTP/1.1\r\nHost: localhost\r\n\r\n", 501),
        (b"nonsense\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"GET / HTTP/x\r\n\r\n", 400),
        (b"GET / HTTP/3.0\r\nHost: localhost\r\n\r\n", 505),
        (b"GET /" + b"a" * 70000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nA: " + b"a" * 70000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"A: a\r\n" * 200 + b"\r\n", 431),
        (post(b"{}", JSON), 411),
        (post(b"{}", JSON, b"Transfer-Encoding: chunked"), 411),
        (post(b"{}", JSON, b"Content-Length: 2", b"Content-Length: 2"), 411),
        (post(b"{}", JSON, b"Content-Length: 2", b"Transfer-Encoding: chunked"), 411),
        (post(b"{}", JSON, b"Content-Length: -2"), 400),
        (post(b"{}", JSON, "Content-Length: ²".encode()), 400),
        (post(b" " * 1025, JSON, b"Content-Length: 1025"), 413),
        (post(b"", JSON, b"Content-Length: " + b"9" * 5000), 413),
        (post(b'{"opacity":1}', b"Content-Length: 13"), 415),
        (post(b'{"opacity":1}', b"Content-Length: 13", b"Content-Type: text/plain"), 415),
        (post(b"opacity=1", b"Content-Length: 9", b"Content-Type: application/x-www-form-urlencoded"), 415),
        (post(b"{opacity}", JSON, b"Content-Length: 9"), 400),
        (post(b"\xff\xff", JSON, b"Content-Length: 2"), 400),
        (post(b"[" * 1024, JSON, b"Content-Length: 1024"), 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n", 400),
    ],
)
def test_bad_requests(page: PageServer, stream: HandStream, request_: bytes, code: int) -> None:
    stream.run(page)
    answer = exchange(page, request_)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % code)
    assert b"Content-Security-Policy: default-src 'self';" in head
    assert list(json.loads(body)) == ["error"]
    assert status(page)["opacity"] == 0.5


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "10.0.0.7", "", "[::1"])
def test_on_loopback_other_names_are_not_answered(page: PageServer, host: str, method: str) -> None:
    """DNS rebinding: evil.example points to 127.0.0.1 once its page is open."""
    for path in ("/", "/frame.jpg", "/live.mjpg", "/api/status", "/api/settings"):
        assert get(page, path, method, Host=host)[0].status == 421


@pytest.mark.parametrize("host", ["localhost", "localhost:9000", "127.0.0.1", "[::1]:8080", "LocalHost:1", "127.0.0.2"])
def test_on_loopback_tunnels_are_answered(page: PageServer, host: str) -> None:
    assert get(page, "/", Host=host)[0].status == 200
    assert change(page, {"opacity": 0.25}, Host=host, Origin=f"http://{host}")[0] == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://["},
        {"Origin": ""},
        {"Origin": "http://localhost:1"},
        {"Origin": "http://localhost.evil.example"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
    ],
)
def test_pages_of_other_sites_change_nothing(page: PageServer, stream: HandStream, headers: dict[str, str]) -> None:
    assert change(page, {"opacity": 1, "task": "semantic"}, Host="localhost:8080", **headers)[0] == 403
    assert (stream.task, status(page)["opacity"]) == ("panoptic", 0.5)


@pytest.mark.parametrize("at", ["127.0.0.1", "0.0.0.0"])
def test_behind_a_proxy_with_encryption(stream: HandStream, at: str) -> None:
    """It asks for the page by address; what it is called outside, the browser knows."""
    with serving(stream, at) as page:
        headers = {"Host": "127.0.0.1:8080", "Origin": "https://robot.example", "Sec_Fetch_Site": "same-origin"}
        assert change(page, {"opacity": 0.25}, **headers)[0] == 200
        assert change(page, {"opacity": 1}, **(headers | {"Sec_Fetch_Site": "cross-site"}))[0] == 403
        del headers["Sec_Fetch_Site"]
        assert change(page, {"opacity": 1}, **headers)[0] == 403


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_open_to_others_foreign_names_are_not_answered(stream: HandStream, method: str) -> None:
    """DNS rebinding again: evil.example points to an address in the network of somebody who opens its page."""
    with serving(stream, "0.0.0.0") as page:
        for host in ("evil.example", "evil.example:8080", "evil.example.", "local.evil.example", "", ".", "[::1"):
            for path in ("/", "/frame.jpg", "/live.mjpg", "/api/status", "/api/settings"):
                response, body = get(page, path, method, Host=host)
                assert response.status == 421
                assert page.url in json.loads(body)["error"]


def test_open_to_others_its_own_names_are_answered(stream: HandStream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "Robot.lab.example")
    with serving(stream, "0.0.0.0") as page:
        own = (
            "robot.lab.example",
            "ROBOT:80",
            "robot.local:8080",
            "robot.local.",
            "10.0.0.7:80",
            "[fd00::7]",
            "localhost",
        )
        for host in own:
            assert get(page, "/", Host=host)[0].status == 200
            assert change(page, {"opacity": 0.25}, Host=host, Origin=f"http://{host}")[0] == 200


# Where it listens


def test_open_to_others_comes_with_a_warning(stream: HandStream) -> None:
    with serving(stream) as page:
        assert page.url == f"http://127.0.0.1:{port_of(page)}/"
        assert page.warning == ""
    with serving(stream, "0.0.0.0") as page:
        assert page.url == f"http://{socket.gethostname()}:{port_of(page)}/"
        assert re.search(r"without password.*--serve 127\.0\.0\.1.*ssh -L", page.warning)


def test_a_name_and_ipv6(stream: HandStream) -> None:
    with serving(stream, "localhost") as page:
        assert get(page, "/")[0].status == 200
        assert page.warning == ""
    if not socket.has_ipv6:
        pytest.skip("needs IPv6")
    try:
        with serving(stream, "::1") as page:
            assert page.url == f"http://[::1]:{port_of(page)}/"
            connection = HTTPConnection("::1", port_of(page), timeout=20)
            connection.request("GET", "/")
            assert connection.getresponse().status == 200
            connection.close()
    except InputError as error:
        pytest.skip(f"needs IPv6 on loopback: {error}")


@pytest.mark.parametrize(
    ("host", "port", "message"),
    [
        ("192.0.2.1", 0, "192.0.2.1:0.*another address"),
        ("no such host", 0, "address of this machine"),
        ("127.0.0.1", 70000, "127.0.0.1:70000"),
        ("127.0.0.1", -1, "127.0.0.1:-1"),
    ],
)
def test_addresses_that_cannot_be_used(stream: HandStream, host: str, port: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        PageServer((host, port), MANIFEST, "x", stream.stats, stream.switch)
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("page-")] == []


def test_an_address_in_use(page: PageServer, stream: HandStream) -> None:
    with pytest.raises(InputError, match=r"in use.*0 takes any free port"):
        PageServer(("127.0.0.1", port_of(page)), MANIFEST, "x", stream.stats, stream.switch)
