"""PostgreSQL hangs: the kernel takes connections and bytes, and no process answers (SIGSTOP)."""

from __future__ import annotations

import asyncio
import gc
import time
from pathlib import Path

import psycopg
import pytest

from sqs2pg.cli.embedded import Postgres
from sqs2pg.runners.pipeline import Pipeline
from sqs2pg.status.probes import ANSWER_S, WRITE_WAITS_S
from sqs2pg.telemetry.periodic import EARLY_S
from tests.waiting import until

from .hang import hung
from .world import Met, World, emptied, users

COUNT = 60
WRITERS = 2
POLL = {"poll_s": 0.1}


@pytest.fixture
def database(server: Postgres) -> str:
    """Its one database, without our tables."""
    return emptied(server)


def sockets(world: World) -> int:
    """How many sockets lead to the database's proxy, those of half-open connections included."""
    ends = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    port, held = f":{world.postgres.port:04X}", {"01", "08"}  # established, closed by the other end
    return sum(end[2].endswith(port) and end[3] in held for end in ends)


@pytest.mark.long
async def test_after_a_long_hang_all_is_as_before(
    world: World, met: Met, server: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sqs2pg.postgres.sink.write_limit_s", lambda _: 1.0)
    monkeypatch.setattr("sqs2pg.telemetry.periodic.LIMIT_S", 1.0)
    monkeypatch.setattr("sqs2pg.telemetry.periodic.AGAIN_S", 0.1)
    monkeypatch.setattr("sqs2pg.telemetry.periodic.SLOW_S", 0.5)
    monkeypatch.setattr("sqs2pg.telemetry.liveness.MARGIN_S", 2.0)  # the hang is longer
    world.send_logins(users(COUNT))
    dsn = psycopg.conninfo.make_conninfo(world.dsn(), connect_timeout=2)
    sink = {"connections": WRITERS, "dsn": dsn}
    async with Pipeline(world.settings(status=POLL, sink=sink)) as ready:
        run = asyncio.create_task(ready.run())
        await until(lambda: ready.totals.written == COUNT, during=run)
        await until(lambda: ready.probes.ready()[0], during=run)
        gc.collect()
        gc.disable()  # a process collects so rarely that nothing may depend on it
        try:
            # Those of the writers; a reading has one more, for as long as it takes.
            await until(lambda: sockets(world) == WRITERS, during=run)
            with hung(server):
                world.send_logins(users(COUNT, "late"))
                await met("postgres_no_answer")
                await met("postgres_08001", 3)
                snapshot = ready.snapshot()
                assert snapshot.well, "a restart would not help"
                assert snapshot.stale["database"] > 1
                assert [worker.heartbeat_s > 1 for worker in snapshot.workers] == [True]
            while ready.totals.written < 2 * COUNT:
                assert ready.consumer.liveness.report().ok, "it is about to write"
                await asyncio.sleep(0.001)
            assert ready.consumer.liveness.report().ok
            await until(lambda: not ready.snapshot().stale, during=run)
            # A writer without a batch may still lack its new one.
            await until(lambda: sockets(world) <= WRITERS, 20, during=run)
        finally:
            gc.enable()
        ready.request_stop()
        await run
    await world.check([*users(COUNT), *users(COUNT, "late")])


async def test_readiness_turns_soon_where_a_write_waits(
    world: World, server: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However rarely the database is read: a write that waits is reason to ask."""
    assert WRITE_WAITS_S + EARLY_S + ANSWER_S < 10
    for name in ("sqs2pg.status.probes.WRITE_WAITS_S", "sqs2pg.status.probes.ANSWER_S"):
        monkeypatch.setattr(name, 0.3)
    monkeypatch.setattr("sqs2pg.telemetry.periodic.EARLY_S", 0.2)
    async with Pipeline(world.settings(status={"poll_s": 600})) as ready:
        run = asyncio.create_task(ready.run())
        await until(lambda: ready.probes.ready()[0], during=run)
        with hung(server):
            world.send_logins(users(COUNT))
            await until(lambda: not ready.probes.ready()[0], 10, during=run)
            assert b'"database":{"ok":false,"detail":"it does not answer"}' in ready.ready()[1]
        await until(lambda: ready.totals.written == COUNT, during=run)
        await until(lambda: ready.probes.ready()[0], during=run)
        ready.request_stop()
        await run
    await world.check(users(COUNT))


async def test_sigterm_during_a_hang_ends_the_process_in_time(
    world: World, server: Postgres
) -> None:
    grace_s = 4
    process = world.spawn(SQS2PG_SHUTDOWN_GRACE_S=str(grace_s))
    world.send_logins(users(COUNT))
    await world.deleted(COUNT)
    with hung(server):
        world.send_logins(users(COUNT, "late"))
        assert await world.reached("received", 2 * COUNT)
        asked = time.monotonic()
        process.terminate()
        code, said = await asyncio.to_thread(world.end_of, process)
        assert time.monotonic() - asked <= grace_s + 1
        assert code == 0, said
        assert await world.reached("visible", COUNT), "what it held is back on the queue"
    totals = await world.drain()
    assert totals.settled == COUNT
    await world.check([*users(COUNT), *users(COUNT, "late")])
