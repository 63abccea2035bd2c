"""kill -9 at the worst instants, and SIGTERM under load: the consumer as a process of its own."""

from __future__ import annotations

import signal

import pytest

from tests.logins import login

from .proxy import Act, Fault
from .world import COPY_TARGET, DELETE, LAST_STATEMENTS, World, users

COUNT = 100
GRACE_S = 20
LOAD = 100_000
GRACE_MAX_S = 60
ONE_BATCH = {"SQS2PG_SINK__CONNECTIONS": "1", "SQS2PG_SINK__BATCH_ROWS_MAX": str(COUNT),
             "SQS2PG_SINK__LINGER_MS": "10000"}  # fmt: skip
"""One writer, and time to fill its batch with all the messages."""


async def test_kill_between_commit_and_delete_gives_duplicates_only(world: World) -> None:
    held = world.sqs.arm(Fault(act=Act.STALL, after=DELETE, times=None))
    ids = world.send([*(login(name) for name in users(COUNT)), "not json"])
    killed = world.spawn()
    await held.fired(-(-len(ids) // 10))  # so every message is committed, and none deleted
    world.kill(killed)
    world.sqs.cut()
    held.release()
    assert world.server.stats()["deleted"] == 0
    await world.check(users(COUNT), malformed=[ids[-1]])
    totals = world.finish(world.spawn("--drain"))
    assert (totals["written"], totals["quarantined"]) == (0, 0)
    assert totals["duplicate"] == COUNT + 1
    world.check_queue_empty()
    await world.check(users(COUNT), malformed=[ids[-1]])


@pytest.mark.parametrize("past", [len(b" rows' bytes"), 4_000])
async def test_kill_in_mid_copy_leaves_nothing_behind(world: World, past: int) -> None:
    """The server has the ledger's rows and half of the target's when the stream ends."""
    inside = world.postgres.arm(Fault(act=Act.STALL, after=COPY_TARGET, at=200 + past))
    world.send_logins(users(COUNT))
    # A batch that is too short would end before the byte.
    killed = world.spawn(**ONE_BATCH)
    await inside.fired()
    [(state,)] = world.sql(
        "SELECT state FROM pg_stat_activity WHERE query LIKE 'COPY \"user_logins\"%%'"
        " AND datname = current_database()"
    )
    assert state == "active"  # the server is in the COPY, waiting for the rest
    world.kill(killed)
    world.postgres.cut()
    inside.release()
    assert world.sql("SELECT count(*) FROM user_logins") == [(0,)]
    assert world.sql("SELECT count(*) FROM sqs2pg.delivery") == [(0,)]
    totals = await world.drain()
    assert (totals.written, totals.duplicate) == (COUNT, 0)
    world.check_queue_empty()
    await world.check(users(COUNT))


async def test_kill_while_commit_is_under_way_is_decided_by_the_ledger(world: World) -> None:
    """COMMIT arrived but its reply did not: the rows are there, and the consumer does not know."""
    held = world.postgres.arm(Fault(act=Act.STALL, after=LAST_STATEMENTS, on_reply=True))
    world.send_logins(users(COUNT))
    killed = world.spawn(**ONE_BATCH)
    await held.fired()
    world.kill(killed)
    world.postgres.cut()
    held.release()
    [(written,)] = world.sql("SELECT count(*) FROM user_logins")
    assert written > 0
    totals = await world.drain()
    assert (totals.duplicate, totals.written) == (written, COUNT - written)
    await world.check(users(COUNT))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_under_load_settles_or_gives_back_every_message(
    world: World, number: signal.Signals
) -> None:
    world.server.fill("logins", LOAD, people=1000, seed=5)
    process = world.spawn(SQS2PG_SHUTDOWN_GRACE_S=str(GRACE_S))
    await world.deleted(1_000)
    process.send_signal(number)
    totals = world.finish(process, timeout_s=GRACE_S + 2)
    stats = world.server.stats()
    # Nothing is in flight: what was not deleted can be received at once.
    assert stats["in_flight"] == 0
    assert stats["visible"] + stats["deleted"] == LOAD
    assert stats["visible"] > 0, "it was not stopped under load"
    [(written,)] = world.sql("SELECT count(*) FROM sqs2pg.delivery")
    assert totals["written"] == written == stats["deleted"]
    assert world.sql("SELECT count(*) FROM user_logins") == [(written,)]


async def test_sigterm_with_the_database_stuck_gives_back_within_the_grace_period(
    world: World,
) -> None:
    stuck = world.postgres.arm(Fault(act=Act.STALL, after=LAST_STATEMENTS, times=None))
    world.send_logins(users(COUNT))
    process = world.spawn(SQS2PG_SHUTDOWN_GRACE_S="3", SQS2PG_SOURCE__VISIBILITY_TIMEOUT_S="60")
    await stuck.fired()
    assert await world.reached("in_flight", COUNT)
    process.send_signal(signal.SIGTERM)
    totals = world.finish(process, timeout_s=3 + 2)
    assert totals["released"] == COUNT
    stats = world.server.stats()
    assert (stats["visible"], stats["in_flight"], stats["deleted"]) == (COUNT, 0, 0)
    world.postgres.cut()
    stuck.release()
    assert (await world.drain()).written == COUNT
    await world.check(users(COUNT))


async def test_a_second_signal_leaves_at_once_and_loses_nothing(world: World) -> None:
    stuck = world.postgres.arm(Fault(act=Act.STALL, after=LAST_STATEMENTS, times=None))
    world.send_logins(users(COUNT))
    process = world.spawn(SQS2PG_SHUTDOWN_GRACE_S=str(GRACE_MAX_S))
    await stuck.fired()
    process.send_signal(signal.SIGTERM)
    while "stopping" not in world.stderr_of(0).read_text():
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    code, _ = world.end_of(process, timeout_s=GRACE_MAX_S / 2)
    assert code == 1
    world.postgres.cut()
    stuck.release()
    assert (await world.drain()).written == COUNT
    await world.check(users(COUNT))
