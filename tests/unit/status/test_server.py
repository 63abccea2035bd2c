"""The status server's bounds: a port that is taken, clients that say nothing, too many of them."""

from __future__ import annotations

import re
import select
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from urllib.parse import urlsplit

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from sqs2pg.errors import SettingsError
from sqs2pg.status import bounded_server, listener
from sqs2pg.status.listener import status_server

HALF = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n"


@contextmanager
def serving(bind: str | None = "127.0.0.1:0") -> Iterator[str]:
    with status_server(bind, CollectorRegistry(), lambda: (True, b'{"ok":true}')) as address:
        yield address


@pytest.fixture
def taken() -> Iterator[str]:
    """An address that somebody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as holder:
        yield f"127.0.0.1:{holder.getsockname()[1]}"


def connected(address: str, said: bytes = HALF) -> socket.socket:
    where = urlsplit(address)
    client = socket.create_connection((where.hostname, where.port), timeout=30)
    client.sendall(said)
    return client


def test_a_written_address_that_is_taken_is_an_error(taken: str) -> None:
    with (
        pytest.raises(SettingsError, match=f"cannot listen on {re.escape(taken)}") as refused,
        serving(taken),
    ):
        raise AssertionError("it serves somewhere")
    assert "port 0 takes any free one" in refused.value.hint


def test_the_default_address_gives_way_with_a_warning(
    taken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "DEFAULT_BIND", taken)
    with capture_logs() as said, serving(None) as address:
        assert not address.endswith(taken)
        with urllib.request.urlopen(f"{address}/livez", timeout=30) as answer:
            assert answer.status == 200
    assert [line["log_level"] for line in said if line.get("code") == "port_taken"] == ["warning"]


def test_an_answer_to_head_has_the_length_of_the_body_and_no_body() -> None:
    answers = {}
    with serving() as address:
        for method in ("GET", "HEAD"):
            said = f"{method} /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            with connected(address, said.encode()) as client, client.makefile("rb") as answer:
                head, _, answers[method] = answer.read().partition(b"\r\n\r\n")
            assert b"\r\nContent-Length: 12\r\n" in head + b"\r\n"
    assert answers == {"GET": b'{"ok":true}\n', "HEAD": b""}


def test_half_sent_requests_take_few_descriptors_and_keep_no_probe_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bounded_server, "CONNECTIONS_MAX", 10)
    with serving() as address, ExitStack() as stack:
        before = threading.active_count()
        for _ in range(30):
            stack.enter_context(connected(address))
        with urllib.request.urlopen(f"{address}/livez", timeout=30) as answer:
            assert answer.status == 200
        until = time.monotonic() + 30
        while threading.active_count() - before > 10:  # the probe's ends, and those of who was cut
            assert time.monotonic() < until
            time.sleep(0.01)


@pytest.mark.parametrize("head", [HALF, b"", b"GET /livez HTTP/1.1\r\nX: "])
def test_a_request_that_drips_in_ends_with_one_deadline(
    monkeypatch: pytest.MonkeyPatch, head: bytes
) -> None:
    monkeypatch.setattr(bounded_server, "REQUEST_S", 0.2)
    with serving() as address, connected(address, head) as client:
        began = time.monotonic()
        while not select.select([client], [], [], 0.02)[0]:
            client.sendall(b"x")
            assert time.monotonic() - began < 30
        assert time.monotonic() - began >= 0.15


def test_a_request_without_end_is_cut() -> None:
    line = b"X-Filler: " + b"x" * 1000 + b"\r\n"
    with (
        serving() as address,
        connected(address, b"GET / HTTP/1.1\r\n") as client,
        pytest.raises((BrokenPipeError, ConnectionResetError)),
    ):
        client.sendall(line * 10_000)
