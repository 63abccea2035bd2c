"""PostgreSQL crashes (immediate stop) during a batch and comes back with its data."""

from __future__ import annotations

from functools import partial

import pytest
from structlog.testing import capture_logs

from sqs2pg.cli.embedded import Postgres
from tests.waiting import until

from .proxy import Act, Fault
from .world import COPY_TARGET, FIRST_STATEMENTS, LAST_STATEMENTS, Met, World, emptied, users

COUNT = 60
AWAY = "database away, receiving paused"
ONE_BATCH = {"connections": 1, "linger_ms": 300}


@pytest.fixture
def database(server: Postgres) -> str:
    """Its one database, as before the last test."""
    return emptied(server)


@pytest.mark.parametrize("moment", [FIRST_STATEMENTS, COPY_TARGET, LAST_STATEMENTS])
async def test_a_crash_in_a_batch_loses_and_doubles_nothing(
    world: World, met: Met, server: Postgres, moment: bytes
) -> None:
    inside = world.postgres.arm(Fault(act=Act.STALL, after=moment))
    world.send_logins(users(COUNT))
    async with world.consuming(sink=ONE_BATCH) as running:
        await running.until(inside.fired())
        server.stop("immediate")
        inside.release()
        await running.until(met("postgres_08001"))  # it tried to connect, without success
        server.start()
        await running.until(world.deleted(COUNT))
    assert running.totals.written == COUNT
    await world.check(users(COUNT))


async def test_a_crash_right_after_commit_keeps_the_rows(
    world: World, met: Met, server: Postgres
) -> None:
    """A commit that was answered survives; so does this one, whose answer never arrives."""
    answered = world.postgres.arm(Fault(act=Act.STALL, after=LAST_STATEMENTS, on_reply=True))
    world.send_logins(users(COUNT))
    async with world.consuming(sink=ONE_BATCH) as running:
        await running.until(answered.fired())
        server.stop("immediate")
        world.postgres.cut()
        answered.release()
        await running.until(met("postgres_08001"))
        server.start()
        await running.until(world.deleted(COUNT))
    assert running.totals.duplicate > 0
    await world.check(users(COUNT))


async def test_a_server_that_comes_and_goes_is_followed(
    world: World, met: Met, server: Postgres
) -> None:
    def said() -> list[str]:
        return [one["event"] for one in logs if "database" in one["event"]]

    def has_said(away: int) -> bool:
        return said().count(AWAY) == away

    with capture_logs() as logs:
        async with world.consuming(sink={"connections": 1}) as running:
            for turn in range(1, 4):
                world.send_logins(users(COUNT, f"turn{turn}-"))
                server.stop("immediate")
                await running.until(met("postgres_08001", turn))
                # A reading may meet it first; messages must wait for the database to be away.
                await running.until(until(partial(has_said, turn)))
                server.start()
                await running.until(world.deleted(turn * COUNT))
                assert said() == [AWAY, "database back"] * turn
    await world.check([name for turn in (1, 2, 3) for name in users(COUNT, f"turn{turn}-")])
