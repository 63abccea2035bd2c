"""Serve HTTP within bounds: time and bytes for a request, and how many are served at a time.

What clients send, or do not send, keeps no probe out and holds no thread for long.
"""

from __future__ import annotations

import io
import socket
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

REQUEST_S = 5.0
"""For a whole request, however its bytes drip; then for each part of the answer, so that a client
that is silent or does not read holds its thread no longer than this."""
_REQUEST_BYTES_MAX = 64 * 1024
CLIENTS_MAX = 64
"""Requests at a time, including streams to open pages; others get status 503."""
CONNECTIONS_MAX = CLIENTS_MAX + 16
"""Connections at a time. The next one takes the place of the one whose request is awaited longest,
so that half-sent requests keep no probe out."""
STREAMS_MAX = 40
"""Streams to open pages; fewer, so that there is always room for probes and scrapes."""


class BoundedServer(ThreadingHTTPServer):
    """See the module."""

    daemon_threads = True
    request_queue_size = CONNECTIONS_MAX

    def __init__(self, listening: socket.socket, handler: type[BoundedHandler]) -> None:
        """Take over a socket that is bound and listens."""
        self.room = threading.BoundedSemaphore(CLIENTS_MAX)
        self.streams = threading.BoundedSemaphore(STREAMS_MAX)
        self._lock = threading.Lock()
        self._open = 0
        self._awaited: dict[socket.socket, None] = {}  # whose request is not whole, oldest first
        address = listening.getsockname()
        super().__init__(address, handler, bind_and_activate=False)
        self.socket.close()  # its own, which is not bound
        self.socket = listening
        self.server_name, self.server_port = address[:2]
        self.server_activate()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Count a connection as it is accepted, and give it a thread."""
        with self._lock:
            if self._open >= CONNECTIONS_MAX:
                oldest = next(iter(self._awaited), None)
                if oldest is None:
                    self.shutdown_request(request)
                    return
                del self._awaited[oldest]
                with suppress(OSError):
                    oldest.shutdown(socket.SHUT_RDWR)  # wakes its thread, which ends
            self._open += 1
            self._awaited[request] = None
        try:
            super().process_request(request, client_address)
        except BaseException:  # no thread could be started
            self._left(request)
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a connection, and count it no longer."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._left(request)

    def request_came(self, request: socket.socket) -> None:
        """Note that the head of a connection's request is whole."""
        with self._lock:
            self._awaited.pop(request, None)

    def _left(self, request: socket.socket) -> None:
        with self._lock:
            self._open -= 1
            self._awaited.pop(request, None)

    def handle_error(self, request: object, client_address: object) -> None:
        """Log nothing: clients often go away, and a traceback may quote what they sent."""


class BoundedHandler(BaseHTTPRequestHandler, ABC):
    """Reads a request within its bounds, and has it answered if there is room for the client."""

    server: BoundedServer
    default_request_version = "HTTP/1.0"
    """Of a request that names none that is known: its answer begins with a status line, too."""

    @abstractmethod
    def get(self) -> None:
        """Answer a GET or HEAD."""

    @abstractmethod
    def post(self) -> None:
        """Answer a POST."""

    @abstractmethod
    def turn_away(self) -> None:
        """Answer a client for which there is no room."""

    def setup(self) -> None:
        """Read within bounds."""
        super().setup()
        self.rfile = io.BufferedReader(_Incoming(self.connection))

    def parse_request(self) -> bool:
        """Parse the head of a request."""
        whole = super().parse_request()
        self.server.request_came(self.connection)
        return whole

    def do_GET(self) -> None:
        """Answer, or turn the client away."""
        with place(self.server.room) as room:
            if room:
                self.get()
            else:
                self.turn_away()

    def do_HEAD(self) -> None:
        """Answer as to a GET; what answers leaves the body out."""
        self.do_GET()

    def do_POST(self) -> None:
        """Answer if there is room; else close the connection."""
        with place(self.server.room) as room:
            if room:
                self.post()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Log nothing: there is a probe every few seconds."""


class _Incoming(io.RawIOBase):
    """What a client sends, within one deadline and one bound for all of it."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._deadline = time.monotonic() + REQUEST_S
        self._left = _REQUEST_BYTES_MAX

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left_s = self._deadline - time.monotonic()
        if left_s <= 0 or self._left <= 0:
            raise TimeoutError
        self._connection.settimeout(left_s)
        count = self._connection.recv_into(buffer)
        self._left -= count
        return count


@contextmanager
def place(places: threading.BoundedSemaphore) -> Iterator[bool]:
    """Take a place for a client; yield whether one was free."""
    room = places.acquire(blocking=False)
    try:
        yield room
    finally:
        if room:
            places.release()
