"""What a connection to PostgreSQL is opened with: the connection string wins over our defaults."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from psycopg.adapt import AdaptersMap

from sqs2pg.postgres.connection import APPLICATION_NAME, CONNECT_TIMEOUT_S, Session

OURS = {
    "fallback_application_name": APPLICATION_NAME,
    "connect_timeout": CONNECT_TIMEOUT_S,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}


async def opened_with(monkeypatch: pytest.MonkeyPatch, dsn: str) -> dict[str, Any]:
    given: dict[str, Any] = {}

    async def connect(_: str, **options: Any) -> Any:
        given.update(options)
        return SimpleNamespace(adapters=AdaptersMap(psycopg.adapters))

    monkeypatch.setattr(psycopg.AsyncConnection, "connect", connect)
    await Session.connect(dsn)
    return given


@pytest.mark.parametrize(
    "dsn", ["", "postgresql://u@db/x", "host=db application_name=reports", "host=db keepalives=0"]
)
async def test_our_defaults_hold_where_the_string_says_nothing(
    monkeypatch: pytest.MonkeyPatch, dsn: str
) -> None:
    assert OURS.items() <= (await opened_with(monkeypatch, dsn)).items()


@pytest.mark.parametrize("name", OURS)
async def test_the_connection_string_wins(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for dsn in (f"postgresql://u@db/x?{name}=45", f"host=db {name}=45"):
        given = await opened_with(monkeypatch, dsn)
        assert name not in given
        assert OURS.keys() - given.keys() == {name}


async def test_variables_and_services_of_libpq_win(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGCONNECT_TIMEOUT", "45")
    assert "connect_timeout" not in await opened_with(monkeypatch, "host=db")
    monkeypatch.delenv("PGCONNECT_TIMEOUT")
    given = await opened_with(monkeypatch, "service=books")
    assert OURS.keys() & given.keys() == {"fallback_application_name", "connect_timeout"}
