"""A small HTTP server for the page of a machine: a fixed table of routes, bounded in every way, deaf to other sites.

It has no users and no encryption. What it keeps out is what a browser would carry in unasked: see :mod:`.same_site`.
"""

import ipaddress
import logging
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.server import HTTPServer
from time import monotonic
from typing import Any

from proscale_deploy.core.errors import InputError
from proscale_deploy.runtime.page.exchange import Exchange, Refused, Route

__all__ = ["WebServer"]

CONNECTIONS = 48
"""Served at the same time; as many more are told that it is full, and those beyond are closed without a word."""
_TICK = 0.25
"""Seconds between two looks at the clock."""

_LOG = logging.getLogger(__name__)


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
        self.names = frozenset((socket.gethostname().lower(), address[0].lower()))
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
                thread.start()  # does nothing to its entry before the lock is free
                self._connections[request] = _Connection(thread, monotonic() + Exchange.timeout)
        if not admitted:
            self.shutdown_request(request)

    def _serve(self, request: socket.socket, client_address: Any) -> None:
        try:
            self.finish_request(request, client_address)
            _linger(request)
        except OSError:
            pass  # the client is gone, or too slow
        except Exception:
            self.handle_error(request, client_address)
        finally:
            with self._lock:
                del self._connections[request]
            self.shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        _LOG.exception("answering a request for the page failed")

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
