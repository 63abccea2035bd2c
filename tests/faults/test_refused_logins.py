"""A login that was good is refused under a running consumer: its password was rotated, say."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from sqs2pg.errors import FatalFault
from tests.integration.vault_support import PASSWORD, login_of
from tests.waiting import WAIT_S

from .world import Met, World, users

COUNT = 20


@pytest.fixture
def sink(world: World) -> Iterator[dict[str, Any]]:
    """Settings of a sink with a login of its own."""
    with login_of(world.database, "sqs2pg_ingest") as dsn:
        yield {"dsn": make_conninfo(dsn, port=world.postgres.port), "connections": 1}


def alter(world: World, sink: dict[str, Any], change: str) -> None:
    """Change the sink's role, and end its sessions."""
    role = conninfo_to_dict(sink["dsn"])["user"]
    world.sql(f"ALTER ROLE {role} {change}")
    world.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", role)


async def refused_for_long(world: World, sink: dict[str, Any]) -> None:
    """Run a consumer whose password is changed for good."""
    async with world.consuming(sink=sink) as running:
        world.send_logins(users(COUNT))
        await running.until(world.deleted(COUNT))
        alter(world, sink, "PASSWORD 'rotated'")
        world.send_logins(users(COUNT, "v"))
        await asyncio.wait({running.task}, timeout=WAIT_S)


@pytest.mark.parametrize(
    ("refuse", "admit"),
    [("PASSWORD 'rotated'", f"PASSWORD '{PASSWORD}'"), ("NOLOGIN", "LOGIN")],
)
async def test_messages_are_held_until_it_is_admitted_again(
    world: World, met: Met, sink: dict[str, Any], refuse: str, admit: str
) -> None:
    async with world.consuming(sink=sink) as running:
        world.send_logins(users(COUNT))
        await running.until(world.deleted(COUNT))
        alter(world, sink, refuse)
        world.send_logins(users(COUNT, "v"))
        # More than once: it goes on trying.
        await running.until(met("postgres_28000", times=3))
        alter(world, sink, admit)
        await running.until(world.deleted(2 * COUNT))
    await world.check([*users(COUNT), *users(COUNT, "v")])


async def test_it_ends_where_the_refusal_lasts(
    world: World, sink: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sqs2pg.runners.connect.LOGIN_PATIENCE_S", 0.5)
    with pytest.raises(FatalFault) as raised:
        await refused_for_long(world, sink)
    assert raised.value.code == "postgres_28000"


async def test_a_first_login_that_is_refused_ends_at_once(
    world: World, sink: dict[str, Any]
) -> None:
    alter(world, sink, "PASSWORD 'rotated'")
    with pytest.raises(FatalFault) as raised:
        await refused_for_long(world, sink)
    assert raised.value.code == "postgres_28000"
