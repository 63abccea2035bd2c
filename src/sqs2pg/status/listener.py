"""Listens for the status server, which is loaded for the first client, or soon after the start.

A start takes the address, so that one that is taken is reported at once; what answers requests
(`server.py`) costs more to load than to have nobody ask for. It is loaded in the thread that
serves.
"""

from __future__ import annotations

import errno
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog

from sqs2pg.errors import SettingsError
from sqs2pg.settings import DEFAULT_BIND
from sqs2pg.status.access import Access
from sqs2pg.status.recorder import Recorder, TakeSnapshots
from sqs2pg.status.site import Health, ReadTap, Site
from sqs2pg.telemetry.lean_prometheus import CollectorRegistry

LOAD_S = 30.0
"""What answers is loaded after this time even if nobody asks: not hours later, when the files of
the package may be another version's."""
_WAITING_MAX = 80
"""Connections that wait for the server to be loaded."""

log = structlog.get_logger(__name__)


@contextmanager
def status_server(
    bind: str | None,
    registry: CollectorRegistry,
    health: Health,
    *,
    ready: Health | None = None,
    access: Access | None = None,
    take: TakeSnapshots | None = None,
    recorder: Recorder | None = None,
    several: bool = False,
    tapped: ReadTap | None = None,
) -> Iterator[str]:
    """Serve while the block runs; yield the address, `http://host:port`, or "" if `bind` is empty.

    None is `DEFAULT_BIND`, or a free port where that one is taken, probably by another pipeline on
    this machine. The page is served if there is a recorder. `tapped` is served only to holders of
    the token. Raises SettingsError if `bind` cannot be bound.
    """
    if bind == "":
        yield ""
        return
    access = access or Access()
    site = Site(registry, health, ready or health, access, take, recorder, several)
    if access.token:
        site.tapped = tapped
    listening = _listen(bind)
    host, port = listening.getsockname()[:2]
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    with _served(listening, site):
        log.info("status", where=address)
        if access.closed:
            log.warning("status: only /livez and /readyz are served off loopback", code="no_token")
        yield address


@contextmanager
def published_address(file: Path | None, address: str) -> Iterator[None]:
    """Write a worker's address, `http://host:port`, to a file for as long as the block runs."""
    if file is None or not address:
        yield
        return
    fresh = file.with_suffix(".new")
    try:
        fresh.write_text(address.removeprefix("http://"))
        fresh.replace(file)  # a reader sees the whole address or none
        yield
    finally:
        for one in (fresh, file):
            one.unlink(missing_ok=True)


def _listen(bind: str | None) -> socket.socket:
    host, _, port = (DEFAULT_BIND if bind is None else bind).rpartition(":")
    address = host.strip("[]")
    try:
        return _listening(address, int(port))
    except OSError as error:
        if bind is None and error.errno == errno.EADDRINUSE:
            log.warning("status: the default port is taken; a free one is used", code="port_taken")
            return _listening(address, 0)
        taken = "; port 0 takes any free one" if error.errno == errno.EADDRINUSE else ""
        raise SettingsError(
            f"status.bind: cannot listen on {host}:{port}: {error.strerror}",
            hint=f'host:port of this machine, such as "{DEFAULT_BIND}", or "" for none{taken}',
        ) from None


def _listening(host: str, port: int) -> socket.socket:
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        # Not SO_REUSEPORT: two pipelines could share a port, and a scrape would reach a random one.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(_WAITING_MAX)
    except BaseException:
        listening.close()
        raise
    return listening


@contextmanager
def _served(listening: socket.socket, site: Site) -> Iterator[None]:
    """Answer clients in a thread while the block runs. Closes the socket."""
    ended, end = socket.socketpair()
    thread = threading.Thread(
        target=_serve, args=(listening, site, ended), name="status", daemon=True
    )
    with listening, ended, end:
        thread.start()
        try:
            yield
        finally:
            end.shutdown(socket.SHUT_WR)  # wakes the thread
            thread.join()


def _serve(listening: socket.socket, site: Site, ended: socket.socket) -> None:
    if ended in select.select([listening, ended], [], [], LOAD_S)[0]:
        return
    from sqs2pg.status.server import StatusServer  # see the module

    with StatusServer(listening, site) as server:
        while ended not in select.select([listening, ended], [], [])[0]:
            server.handle_request()
