"""The status server's address."""

from __future__ import annotations

import re
import socket
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from sqs2pg.errors import SettingsError
from sqs2pg.status import server
from sqs2pg.status.server import status_server


@contextmanager
def serving(bind: str | None = "127.0.0.1:0") -> Iterator[str]:
    with status_server(bind, CollectorRegistry(), lambda: (True, b'{"ok":true}')) as address:
        yield address


@pytest.fixture
def taken() -> Iterator[str]:
    """An address that somebody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as holder:
        yield f"127.0.0.1:{holder.getsockname()[1]}"


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
    monkeypatch.setattr(server, "DEFAULT_BIND", taken)
    with capture_logs() as said, serving(None) as address:
        assert not address.endswith(taken)
        with urllib.request.urlopen(f"{address}/livez", timeout=30) as answer:
            assert answer.status == 200
    assert [line["log_level"] for line in said if line.get("code") == "port_taken"] == ["warning"]
