"""A small HTTP server for the page of a machine: a fixed table of routes, bounded in every way, deaf to other sites.

It has no users and no encryption. What it keeps out is what a browser would carry in unasked: requests that other sites
make in the name of somebody who may open the page (cross-site request forgery), and sites that let their own name point
to this machine (DNS rebinding).
"""

import ipaddress
import json
import logging
import math
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

from proscale_deploy.core.errors import InputError

__all__ = ["Exchange", "Refused", "Route", "WebServer"]

CONNECTIONS = 48
"""Served at the same time; as many more are told that it is full, and those beyond are closed without a word."""
REQUEST_SECONDS = 15.0
"""From the opening of a connection, or its last answer, to the end of the next request."""
SEND_SECONDS = 5.0
"""For one answer, or one picture of a stream, to leave."""
BODY_BYTES = 1024
_TICK = 0.25
"""Seconds between two looks at the clock."""

_NONE: Mapping[str, str] = {}
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",
}

_LOG = logging.getLogger(__name__)


class Refused(Exception):
    """A request that is answered with an error; the message is for people."""

    def __init__(self, status: HTTPStatus, message: str, headers: Mapping[str, str] = _NONE) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers


class Exchange(BaseHTTPRequestHandler):
    """One connection: its requests, one after the other, and their answers."""

    protocol_version = "HTTP/1.1"
    default_request_version = "HTTP/1.0"  # for what cannot be read: its answer has a head too
    timeout = REQUEST_SECONDS
    server: "WebServer"

    def reply(
        self, content_type: str, body: bytes, status: int = HTTPStatus.OK, headers: Mapping[str, str] = _NONE
    ) -> None:
        self.start(content_type, status, {"Content-Length": str(len(body)), **headers})
        if self.command != "HEAD":
            self.wfile.write(body)

    def reply_json(self, value: object, status: int = HTTPStatus.OK, headers: Mapping[str, str] = _NONE) -> None:
        """Numbers that JSON does not have become null."""
        text = json.dumps(_finite(value), allow_nan=False, separators=(",", ":"))
        self.reply("application/json", text.encode(), status, headers)

    def start(self, content_type: str, status: int = HTTPStatus.OK, headers: Mapping[str, str] = _NONE) -> None:
        """The head of an answer; the caller writes the body."""
        self.server.expect_by(self.connection, math.inf)
        self.connection.settimeout(SEND_SECONDS)
        self.send_response(status)
        for name, value in {"Content-Type": content_type, **_HEADERS, **headers}.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()

    def read_json(self) -> Any:
        """The body of the request.

        Raises:
            Refused: it is not JSON, too long, or not there.
        """
        lengths = self.headers.get_all("Content-Length", [])
        if self.headers.get("Transfer-Encoding") is not None or len(lengths) != 1:
            raise Refused(HTTPStatus.LENGTH_REQUIRED, "expected one Content-Length and no Transfer-Encoding")
        if not (lengths[0].isascii() and lengths[0].isdecimal()):
            raise Refused(HTTPStatus.BAD_REQUEST, "Content-Length is not a number")
        if len(lengths[0]) > 9 or int(lengths[0]) > BODY_BYTES:
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"expected at most {BODY_BYTES} bytes")
        # A form on another site can send text and form fields without asking first, but not this type.
        if self.headers.get_content_type() != "application/json":
            raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "expected Content-Type: application/json")
        body = self.rfile.read(int(lengths[0]))
        self.server.expect_by(self.connection, math.inf)
        try:
            return json.loads(body)
        except (ValueError, RecursionError) as error:
            raise Refused(HTTPStatus.BAD_REQUEST, f"not JSON: {error}") from None

    def _answer(self) -> None:
        self.connection.settimeout(REQUEST_SECONDS)
        if self.command in ("GET", "HEAD"):
            self.server.expect_by(self.connection, math.inf)
            if self.headers.get("Content-Length", "0") != "0" or self.headers.get("Transfer-Encoding") is not None:
                self.close_connection = True  # nobody reads the body: it must not pass for the next request
        try:
            self.server.check_crowd(self.connection)
            self._check_site()
            self._route()(self)
        except Refused as refused:
            self.close_connection = True  # a body may be left unread
            self.reply_json({"error": str(refused)}, refused.status, refused.headers)
        self.server.expect_by(self.connection, monotonic() + REQUEST_SECONDS)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _answer

    def _route(self) -> "Route":
        method = "GET" if self.command == "HEAD" else self.command
        path = self.path.partition("?")[0]
        routes = {known: route for (known, at), route in self.server.routes.items() if at == path}
        if not routes:
            raise Refused(HTTPStatus.NOT_FOUND, "there is nothing here; the page is at /")
        if method not in routes:
            allowed = ", ".join(sorted(routes))
            raise Refused(HTTPStatus.METHOD_NOT_ALLOWED, f"expected {allowed}", {"Allow": allowed})
        return routes[method]

    def _check_site(self) -> None:
        """Raise Refused for what another site may have sent."""
        hosts = self.headers.get_all("Host", [])
        if len(hosts) != 1:
            raise Refused(HTTPStatus.BAD_REQUEST, "expected one Host header")
        if self.server.is_loopback and not _is_loopback_name(hosts[0]):
            raise Refused(
                HTTPStatus.MISDIRECTED_REQUEST, f"this page answers to this machine only: open {self.server.url}"
            )
        if self.command not in ("GET", "HEAD"):
            origin = self.headers.get("Origin")  # every browser sends it with a POST; other programs need not
            if origin is not None and origin.lower().partition("://")[2] != hosts[0].lower():
                raise Refused(HTTPStatus.FORBIDDEN, "sent by the page of another site")
            if self.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
                raise Refused(HTTPStatus.FORBIDDEN, "sent by the page of another site")

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """For requests that http.server itself refuses."""
        self.close_connection = True
        self.reply_json({"error": message or HTTPStatus(code).phrase}, code)

    def version_string(self) -> str:
        return "proscale-deploy"

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not worth a line."""


Route = Callable[[Exchange], None]


@dataclass
class _Connection:
    thread: threading.Thread
    expected: float
    """The monotonic time by which the next request must be complete."""


class WebServer(HTTPServer):
    """Serves ``routes``, {(method, path): what answers}, from the moment it is made until :meth:`close`.

    ``tick`` is called a few times per second, in the thread that accepts connections.

    Raises:
        InputError: the address cannot be used; the message says why.
    """

    request_queue_size = 32

    def __init__(
        self, address: tuple[str, int], routes: Mapping[tuple[str, str], Route], tick: Callable[[], None]
    ) -> None:
        self.routes = routes
        self._tick = tick
        self._connections: dict[socket.socket, _Connection] = {}
        self._lock = threading.Lock()
        self.address_family, at = _resolve(*address)
        try:
            super().__init__(at, Exchange)
        except OSError as error:
            raise InputError(
                f"cannot serve at {address[0]}:{address[1]}: {error.strerror}; choose another address, as 127.0.0.1:0, "
                "where 0 takes any free port"
            ) from None
        host, self.server_port = self.socket.getsockname()[:2]
        self.is_loopback = ipaddress.ip_address(host).is_loopback
        everywhere = ipaddress.ip_address(host).is_unspecified
        name = socket.gethostname() if everywhere else f"[{host}]" if ":" in host else host
        self.url = f"http://{name}:{self.server_port}/"
        self._thread = threading.Thread(target=self.serve_forever, args=(_TICK,), name="page-server", daemon=True)
        self._thread.start()

    def server_bind(self) -> None:
        # HTTPServer's own looks up the machine's name, which takes seconds where there is no name server.
        super(HTTPServer, self).server_bind()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Each connection in a thread of its own."""
        thread = threading.Thread(target=self._serve, args=(request, client_address), name="page-client", daemon=True)
        with self._lock:
            admitted = len(self._connections) < 2 * CONNECTIONS
            if admitted:
                self._connections[request] = _Connection(thread, monotonic() + REQUEST_SECONDS)
                thread.start()
        if not admitted:
            self.shutdown_request(request)

    def _serve(self, request: socket.socket, client_address: Any) -> None:
        try:
            self.finish_request(request, client_address)
            _linger(request)
        except OSError:
            pass  # the client is gone, or too slow
        except Exception:
            _LOG.exception("answering a request for the page failed")
        finally:
            with self._lock:
                del self._connections[request]
            self.shutdown_request(request)

    def check_crowd(self, connection: socket.socket) -> None:
        """Raise Refused for connections beyond those that are served."""
        with self._lock:
            place = list(self._connections).index(connection)
        if place >= CONNECTIONS:
            raise Refused(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"{CONNECTIONS} connections are open already; close other windows of this page",
                {"Retry-After": "5"},
            )

    def expect_by(self, connection: socket.socket, when: float) -> None:
        """The next request of this connection must be complete at the monotonic time ``when``."""
        with self._lock:
            self._connections[connection].expected = when

    def service_actions(self) -> None:
        """Close connections whose request does not come to an end, however busily it trickles in."""
        now = monotonic()
        with self._lock:
            late = [connection for connection, state in self._connections.items() if state.expected < now]
        for connection in late:
            _shut(connection)
        self._tick()

    def close(self) -> None:
        """Close all connections and wait for their threads."""
        self.shutdown()
        self._thread.join()
        self.server_close()
        with self._lock:
            open_ = dict(self._connections)
        for connection in open_:
            _shut(connection)
        for state in open_.values():
            state.thread.join()


def _resolve(host: str, port: int) -> tuple[socket.AddressFamily, Any]:
    """IPv4 where a name has both."""
    if not 0 <= port <= 65535:
        raise InputError(f"cannot serve at {host}:{port}: ports go from 0 to 65535, where 0 takes any free one")
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise InputError(f"cannot serve at {host}:{port}: {error}; give an address of this machine") from None
    family, _, _, _, address = min(found, key=lambda f: f[0] != socket.AF_INET)
    return family, address


def _is_loopback_name(host: str) -> bool:
    """Whether a Host header can only mean this machine; the port may be that of a tunnel."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _linger(connection: socket.socket) -> None:
    """Take what is still coming, within reason: closing on unread bytes would take the answer away from the client."""
    connection.shutdown(socket.SHUT_WR)
    connection.settimeout(0.5)
    for _ in range(16):
        if not connection.recv(4096):
            break


def _shut(connection: socket.socket) -> None:
    """What waits for this connection in another thread stops waiting."""
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
