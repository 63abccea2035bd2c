"""How long a connection to PostgreSQL may take to open."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from sqs2pg.postgres.connection import CONNECT_TIMEOUT_S, Session


@pytest.mark.parametrize(
    ("dsn", "seconds"),
    [
        ("", CONNECT_TIMEOUT_S),
        ("postgresql://u@db/x", CONNECT_TIMEOUT_S),
        ("postgresql://u@db/x?connect_timeout=3", 3),
        ("host=db connect_timeout=45", 45),
    ],
)
async def test_the_connection_string_wins(
    monkeypatch: pytest.MonkeyPatch, dsn: str, seconds: int
) -> None:
    given: dict[str, Any] = {}

    async def connect(_: str, **options: Any) -> None:
        given.update(options)

    monkeypatch.setattr(psycopg.AsyncConnection, "connect", connect)
    await Session.connect(dsn)
    assert int(given["connect_timeout"]) == seconds
