"""The status server: `/metrics` for Prometheus, `/livez` for whoever restarts dead processes.

In a thread of its own, so that it still answers, and says so, when the event loop hangs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from sqs2pg.errors import SettingsError

_REQUEST_S = 5.0  # a client that says nothing holds its thread no longer than this

Health = Callable[[], tuple[bool, bytes]]
"""Whether all is well, and the report on it as JSON."""

log = structlog.get_logger(__name__)


@contextmanager
def status_server(bind: str, registry: CollectorRegistry, health: Health) -> Iterator[str]:
    """Serve until closed; yield the address, `http://host:port`, or "" where `bind` is empty.

    A port that is taken, by another pipeline on this machine most likely, is replaced by a free
    one, and the log says which. Raises SettingsError where the host cannot be bound.
    """
    if not bind:
        yield ""
        return
    server = _listen(bind, _handler(registry, health))
    thread = threading.Thread(target=server.serve_forever, name="status", daemon=True)
    thread.start()
    host, port = server.server_address[:2]
    address = f"http://{host!s}:{port}"
    log.info("status", where=address)
    try:
        yield address
    finally:
        server.shutdown()
        server.server_close()


def _listen(bind: str, handler: type[BaseHTTPRequestHandler]) -> ThreadingHTTPServer:
    host, _, port = bind.rpartition(":")
    for candidate in (int(port), 0):
        try:
            return _Server((host.strip("[]"), candidate), handler)
        except (OSError, OverflowError) as error:
            failure = error
    reason = getattr(failure, "strerror", None) or "no such port"
    raise SettingsError(
        f"status.bind: cannot listen on {host}: {reason}",
        hint='host:port of this machine, such as "127.0.0.1:9465", or "" for none',
    )


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # Without it two pipelines could share a port and each scrape would meet a random one.
    allow_reuse_port = False


def _handler(registry: CollectorRegistry, health: Health) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = _REQUEST_S
        server_version = "sqs2pg"
        sys_version = ""

        def do_GET(self) -> None:
            match self.path.partition("?")[0]:
                case "/metrics":
                    encode, content_type = choose_encoder(self.headers.get("Accept", ""))
                    self._answer(200, content_type, encode(registry))
                case "/livez":
                    ok, body = health()
                    self._answer(200 if ok else 503, "application/json", body + b"\n")
                case _:
                    self._answer(404, "text/plain", b"/metrics, /livez\n")

        def _answer(self, status: int, content_type: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("X-Content-Type-Options", "nosniff")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Say nothing: a probe every few seconds is not news."""

    return Handler
