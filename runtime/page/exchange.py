"""One connection of a web server: bounded requests of its own site, answers whose headers protect a page."""

import json
import math
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from time import monotonic
from typing import TYPE_CHECKING, Any

from proscale_deploy.runtime.page.same_site import is_own_host, is_same_origin

if TYPE_CHECKING:
    from proscale_deploy.runtime.page.web import WebServer

__all__ = ["Exchange", "Refused", "Route"]

SEND_SECONDS = 5.0
"""For one answer, or one picture of a stream, to leave."""
BODY_BYTES = 1024

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
    timeout = 15.0
    """Seconds from the opening of a connection, or its last answer, to the end of the next request."""
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
        self.connection.settimeout(self.timeout)
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
        self.server.expect_by(self.connection, monotonic() + self.timeout)

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
        if not is_own_host(hosts[0], self.server.names, self.server.is_loopback):
            raise Refused(
                HTTPStatus.MISDIRECTED_REQUEST,
                f"not known by this name: open {self.server.url} or the machine's address; a proxy passes that as Host",
            )
        if self.command not in ("GET", "HEAD") and not is_same_origin(self.headers, hosts[0]):
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


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
