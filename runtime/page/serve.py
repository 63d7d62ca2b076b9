"""The page of a running stream, for machines without a screen: live picture, legend, figures, switches."""

import re
import secrets
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from http import HTTPStatus
from importlib import resources
from pathlib import PurePosixPath
from time import perf_counter
from types import TracebackType
from typing import Any

from proscale_deploy.core.errors import DeployError
from proscale_deploy.core.manifest import Manifest
from proscale_deploy.core.types import Task
from proscale_deploy.runtime.draw import ClassShare, class_shares
from proscale_deploy.runtime.page.exchange import Exchange, Refused, Route
from proscale_deploy.runtime.page.picture import LivePicture
from proscale_deploy.runtime.page.web import WebServer
from proscale_deploy.runtime.streams.stats import Segmented, StreamStats

__all__ = ["PageServer"]

VIEWERS = 16
"""Live pictures sent at the same time."""
FIRST_SECONDS = 10.0
"""A viewer who comes before the first frame waits this long for it."""
REPEAT_SECONDS = 2.0
"""Without new frames the last one is sent again this often: so dead viewers are noticed."""
_SAMPLE, _SAMPLES = 0.5, 120
"""Seconds between the samples of the plots, and how many are kept: one minute."""
_SEND_BUFFER = 128 << 10
"""Bytes on their way to one viewer. A larger buffer would show a slow one pictures that are seconds old."""
_NEXT_PART = b"--frame\r\nContent-Type: image/jpeg\r\n\r\n"
"""Sent right behind each picture, for Chromium does not show one before it has seen the head of the next."""
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


class PageServer:
    """Serves the page of one stream at ``address`` (host, port; port 0 takes any free one) until it is closed::

        with PageServer(("127.0.0.1", 8080), segmenter.manifest, "street.mp4", stream.stats, stream.switch) as page:
            page.show(Segmented(frame, result, task))

    ``title`` is what is seen, as the source's address. ``stats`` and ``switch`` are called from other threads;
    ``switch`` changes the task of the stream and may raise DeployError, which the page shows.

    Frames are drawn and encoded in a thread of the page, while somebody watches, always the newest; the caller of
    :meth:`show` never waits. There is no password: who reaches the address sees the pictures, see :attr:`warning`.

    Raises:
        InputError: the address cannot be used.
    """

    def __init__(
        self,
        address: tuple[str, int],
        manifest: Manifest,
        title: str,
        stats: Callable[[], StreamStats],
        switch: Callable[[Task], None],
    ) -> None:
        self._manifest = manifest
        self._title = _without_secrets(title)
        self._stats = stats
        self._switch = switch
        self._run = secrets.token_hex(8)
        self._picture = LivePicture(manifest.classes, VIEWERS)
        self._lock = threading.Lock()
        self._asked: Task | None = None
        """The task of the last switch, until a frame of it comes."""
        self._shown = -float("inf")
        self._shares: tuple[Segmented, list[ClassShare]] | None = None
        self._history: deque[tuple[float, float | None]] = deque(maxlen=_SAMPLES)
        self._sampled = -float("inf")
        try:
            self._server = WebServer(address, self._routes(), self._sample)
        except BaseException:
            self._picture.close()
            raise

    @property
    def url(self) -> str:
        return self._server.url

    @property
    def warning(self) -> str:
        """What somebody should know who opens the page to others; "" where only this machine can reach it."""
        if self._server.is_loopback:
            return ""
        port = self._server.server_port
        return (
            f"everybody who can reach port {port} of this machine sees the page and can switch the task, without "
            f"password or encryption. In a network you do not trust: --serve 127.0.0.1:{port} here, and "
            f"ssh -L {port}:127.0.0.1:{port} {socket.gethostname()} where you look at it"
        )

    def show(self, item: Segmented) -> None:
        """The newest frame. Never blocks; its arrays must not be changed afterwards."""
        self._shown = perf_counter()
        if item.task == self._asked:
            self._asked = None
        self._picture.show(item)

    def close(self) -> None:
        """Disconnect everybody and end all threads."""
        self._picture.close()
        self._server.close()

    def __enter__(self) -> "PageServer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _routes(self) -> dict[tuple[str, str], Route]:
        return {
            ("GET", "/"): _file("index.html"),
            ("GET", "/page.css"): _file("page.css"),
            ("GET", "/page.js"): _file("page.js"),
            ("GET", "/icon.svg"): _file("icon.svg"),
            ("GET", "/live.mjpg"): self._send_live,
            ("GET", "/frame.jpg"): self._send_still,
            ("GET", "/api/model"): lambda exchange: exchange.reply_json(self._model()),
            ("GET", "/api/status"): lambda exchange: exchange.reply_json(self._status()),
            ("POST", "/api/settings"): self._change_settings,
        }

    def _send_live(self, exchange: Exchange) -> None:
        name = exchange.path.partition("?")[2][:40]
        if not self._picture.join(name):
            raise Refused(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"{VIEWERS} viewers are watching already, which is the most",
                {"Retry-After": "5"},
            )
        try:
            jpeg = self._picture.next_jpeg(None, FIRST_SECONDS)
            if jpeg is None:
                raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, "no frame yet", {"Retry-After": "1"})
            exchange.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
            exchange.close_connection = True
            exchange.start("multipart/x-mixed-replace; boundary=frame")
            if exchange.command == "HEAD":
                return
            exchange.wfile.write(_NEXT_PART)
            while jpeg is not None:
                exchange.wfile.write(jpeg + b"\r\n" + _NEXT_PART)
                last, jpeg = jpeg, self._picture.next_jpeg(jpeg, REPEAT_SECONDS)
            exchange.wfile.write(last + b"\r\n--frame--\r\n")  # an empty part would take away what is seen
        finally:
            self._picture.leave(name)

    def _send_still(self, exchange: Exchange) -> None:
        still = self._picture.still()
        if still is None:
            raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, "no frame yet", {"Retry-After": "1"})
        item, jpeg = still
        ago = perf_counter() - item.frame.captured if item.frame.captured else 0.0
        taken = time.time() - ago
        moment = time.strftime("%Y-%m-%d_%H-%M-%S", time.localtime(taken)) + f".{int(taken % 1 * 1000):03d}"
        subject = re.sub(r"[^A-Za-z0-9]+", "-", PurePosixPath(self._title).stem).strip("-")[:40] or "frame"
        exchange.reply(
            "image/jpeg", jpeg, headers={"Content-Disposition": f'attachment; filename="{subject}_{moment}.jpg"'}
        )

    def _change_settings(self, exchange: Exchange) -> None:
        """{"task": ..., "opacity": ...}, one of them or both."""
        settings = exchange.read_json()
        tasks = self._manifest.thresholds.tasks
        if not isinstance(settings, dict) or not settings or not settings.keys() <= {"task", "opacity"}:
            raise Refused(HTTPStatus.BAD_REQUEST, "expected task, opacity, or both")
        task, opacity = settings.get("task", tasks[0]), settings.get("opacity", 0)
        if task not in tasks:
            raise Refused(HTTPStatus.BAD_REQUEST, f"expected a task out of {', '.join(tasks)}")
        if isinstance(opacity, bool) or not isinstance(opacity, (int, float)) or not 0 <= opacity <= 1:
            raise Refused(HTTPStatus.BAD_REQUEST, "expected an opacity from 0 to 1")
        if "task" in settings:
            self._switch_to(task)
        if "opacity" in settings:
            self._picture.opacity = float(opacity)
        exchange.reply_json({"task": self._task(), "opacity": self._picture.opacity})

    def _switch_to(self, task: Task) -> None:
        try:
            self._switch(task)
        except DeployError as error:
            raise Refused(HTTPStatus.CONFLICT, str(error)) from None
        self._asked = task

    def _task(self) -> Task | None:
        newest = self._picture.newest
        return self._asked or (newest.task if newest else None)

    def _model(self) -> Mapping[str, Any]:
        """What does not change while the stream runs."""
        return {
            "title": self._title,
            "architecture": self._manifest.architecture,
            "precision": self._manifest.precision,
            "input": [self._manifest.input.height, self._manifest.input.width],
            "tasks": self._manifest.thresholds.tasks,
            "classes": [
                {"name": info.name, "is_thing": info.is_thing, "color": "#{:02x}{:02x}{:02x}".format(*info.color)}
                for info in self._manifest.classes
            ],
            "version": self._manifest.version,
            "machine": socket.gethostname(),
        }

    def _status(self) -> Mapping[str, Any]:
        stats, newest = self._stats(), self._picture.newest
        with self._lock:
            history = list(self._history)
        return {
            "run": self._run,
            "state": stats.state,
            "message": _without_secrets(stats.message),
            "frames": stats.frames,
            "dropped": stats.dropped,
            "reconnects": stats.reconnects,
            "corrupt": stats.corrupt,
            "fps": stats.frames_per_second,
            "age_ms": round(1000 * stats.age, 2),
            "last_frame_s": round(perf_counter() - self._shown, 2),
            "frame_size": list(newest.frame.image.shape[:2]) if newest else None,
            "stages_ms": [[stage, round(ms, 2)] for stage, ms in stats.stages.items()],
            "task": self._task(),
            "opacity": self._picture.opacity,
            "viewers": self._picture.viewers,
            "most_viewers": VIEWERS,
            "shares": [[s.class_id, s.share, s.count] for s in self._class_shares(newest)],
            "history": {
                "interval_s": _SAMPLE,
                "samples": _SAMPLES,
                "fps": [round(fps, 2) for fps, _ in history],
                "age_ms": [None if age is None else round(1000 * age, 1) for _, age in history],
            },
        }

    def _class_shares(self, newest: Segmented | None) -> list[ClassShare]:
        """Counted once per frame, and only for those frames that somebody asks about."""
        if newest is None:
            return []
        with self._lock:
            if self._shares is None or self._shares[0] is not newest:
                self._shares = newest, class_shares(newest.result, self._manifest.classes)
            return self._shares[1]

    def _sample(self) -> None:
        now = perf_counter()
        if now - self._sampled >= _SAMPLE:
            self._sampled = now
            stats = self._stats()
            running = stats.state == "running" and stats.age == stats.age
            with self._lock:
                self._history.append((stats.frames_per_second, stats.age if running else None))


def _without_secrets(text: str) -> str:
    """Addresses of cameras hold user and password, before the host or in the query. One slash is read as two."""
    return re.sub(r"(\w+:/+)(?:\S*@)?([^\s?#]*)\S*", r"\1\2", text)


def _file(name: str) -> Route:
    """Read once, so that no request reaches the file system."""
    content = resources.files(__package__).joinpath(name).read_bytes()
    content_type = _TYPES["." + name.rpartition(".")[2]] + "; charset=utf-8"
    return lambda exchange: exchange.reply(content_type, content)
