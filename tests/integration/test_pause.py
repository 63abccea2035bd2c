"""Pause and resume on real servers: when they reach a worker, and what becomes of what it holds."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import pytest

from sqs2pg.errors import FatalFault
from sqs2pg.pipeline.pause_watch import REACHES_S
from sqs2pg.postgres import pauses
from sqs2pg.postgres.verify import verify
from sqs2pg.runners.pipeline import Pipeline
from tests.integration.support import Assemble, metric, opened, rows, send
from tests.logins import login
from tests.waiting import until

COUNT = "SELECT count(*) FROM user_logins"
PAUSED = "SELECT code, reason FROM sqs2pg.pause"
SOON = {"poll_s": 0.5}


async def act(ready: Pipeline, what: str, reason: str = "") -> bool:
    """Pause or resume, as the commands do."""
    async with opened(ready.settings) as session:
        return await getattr(pauses, what)(session, ready.sink_plan.id, reason)


def readiness(ready: Pipeline) -> tuple[bool, Any]:
    ok, report = ready.ready()
    return ok, json.loads(report)["paused"]


@asynccontextmanager
async def running(ready: Pipeline, **how: Any) -> Any:
    """The pipeline consumes while the block runs."""
    run = asyncio.create_task(ready.run(**how))
    try:
        yield run
    finally:
        ready.request_stop()
        await asyncio.wait([run])


async def test_a_pause_reaches_an_idle_worker_and_a_resume_lets_it_go_on(
    pipeline: Assemble, database: str
) -> None:
    # A long poll is under way that would bring what is sent after the pause.
    async with pipeline(source={"wait_time_s": 6}) as ready, running(ready) as run:
        await send(ready, [login(1)])
        await until(lambda: rows(database, COUNT) == [(1,)], during=run)
        assert await act(ready, "pause", "the table is being rebuilt")
        assert not await act(ready, "pause", "once more")
        assert rows(database, PAUSED) == [("by_operator", "the table is being rebuilt")]
        await until(lambda: ready.consumer.pollers.stopped, REACHES_S, during=run)
        assert metric(ready, "paused", code="by_operator") == 1
        await until(lambda: ready.consumer.pollers.gives_back, during=run)
        await send(ready, [login(i) for i in range(2, 12)])
        await until(lambda: ready.stretches.waits, during=run)
        await until(lambda: readiness(ready)[1], during=run)
        _, shown = readiness(ready)
        assert shown["code"] == "by_operator"
        assert ready.health()[0]
        assert ready.snapshot().pause.reason == "the table is being rebuilt"
        read_at = ready.stretches.pause_read_at
        await until(lambda: ready.stretches.pause_read_at > read_at, during=run)
        assert rows(database, COUNT) == [(1,)], "nothing is written"
        assert ready.source.held_count == 0
        assert (await ready.source.depth())[0] == 10, "the last poll gave back what it brought"
        assert await act(ready, "resume", "done")
        assert not await act(ready, "resume")
        await until(lambda: rows(database, COUNT) == [(11,)], during=run)
        assert metric(ready, "paused", code="by_operator") == 0
        assert readiness(ready)[1] is None
    acts = rows(database, "SELECT act, subject, reason FROM sqs2pg.audit ORDER BY sequence")
    assert acts == [
        ("pause", "pipeline 1", "the table is being rebuilt"),
        ("resume", "pipeline 1", "done"),
    ]
    assert ready.totals.written == 11


async def test_a_paused_pipeline_is_ready_and_its_worker_says_that_it_is_paused(
    pipeline: Assemble, database: str
) -> None:
    async with pipeline(status=SOON) as ready, running(ready) as run:
        await until(lambda: ready.ready()[0], during=run)
        await act(ready, "pause")
        state = "SELECT state FROM sqs2pg.worker"
        await until(lambda: rows(database, state) == [("paused",)], during=run)
        ok, shown = readiness(ready)
        assert ok
        assert set(shown) == {"code", "since"}, "who and why need a token"
        await act(ready, "resume")
        await until(lambda: rows(database, state) == [("running",)], during=run)


async def test_pauses_under_load_lose_nothing_and_double_nothing(
    pipeline: Assemble, database: str
) -> None:
    wanted = 3_000
    # Batches are small and leases short, so that pauses come in the middle of everything.
    source = {"visibility_timeout_s": 4, "wait_time_s": 1}
    sink = {"batch_rows_max": 50, "connections": 2}
    async with pipeline(source=source, sink=sink) as ready, running(ready) as run:
        sending = asyncio.create_task(send(ready, [login(i) for i in range(wanted)]))
        for turn in range(1, 4):
            await until(lambda t=turn: ready.totals.settled >= t * wanted // 5, during=run)
            await act(ready, "pause", f"turn {turn}")
            await until(lambda: ready.stretches.waits, during=run)
            assert ready.source.held_count == 0
            settled = rows(database, COUNT)
            read_at = ready.stretches.pause_read_at
            await until(lambda at=read_at: ready.stretches.pause_read_at > at, during=run)
            assert rows(database, COUNT) == settled
            await act(ready, "resume")
            await until(lambda: not ready.stretches.waits, during=run)
        await sending
        await until(lambda: rows(database, COUNT) == [(wanted,)], during=run)
        await until(lambda: ready.source.held_count == 0, during=run)
    distinct = "SELECT count(*), count(DISTINCT user_id) FROM user_logins"
    assert rows(database, distinct) == [(wanted, wanted)]
    async with opened(ready.settings) as session:
        assert (await verify(session, ready.sink_plan.id)).ok


async def test_what_cannot_be_finished_within_the_grace_period_goes_back(
    pipeline: Assemble, database: str
) -> None:
    long = {"visibility_timeout_s": 600}
    async with pipeline(shutdown_grace_s=1, source=long) as ready, running(ready) as run:
        with psycopg.connect(database) as holder:
            holder.execute("LOCK TABLE user_logins IN ACCESS EXCLUSIVE MODE")
            await send(ready, [login(i) for i in range(5)])
            await until(lambda: ready.source.held_count == 5, during=run)
            await act(ready, "pause")
            await until(lambda: ready.stretches.waits, during=run)
            assert ready.source.held_count == 0
            assert (await ready.source.depth())[0] == 5, "visible at once, not in ten minutes"
        assert ready.totals.released == 5
        await act(ready, "resume")
        await until(lambda: rows(database, COUNT) == [(5,)], during=run)


async def test_a_worker_that_starts_while_paused_waits_and_one_that_stops_meanwhile_ends(
    pipeline: Assemble, database: str
) -> None:
    async with pipeline() as ready:
        await act(ready, "pause", "not yet")
        await send(ready, [login(1)])
        async with running(ready) as run:
            await until(lambda: ready.stretches.waits, during=run)
            assert ready.totals.received == 0
            ready.request_stop()
            totals = await asyncio.wait_for(run, REACHES_S)
        assert totals.received == 0
    async with pipeline() as ready, running(ready) as run:
        await until(lambda: ready.stretches.waits, during=run)
        await act(ready, "resume")
        await until(lambda: rows(database, COUNT) == [(1,)], during=run)


async def test_a_drain_of_a_paused_pipeline_is_refused(pipeline: Assemble, database: str) -> None:
    async with pipeline() as ready:
        await send(ready, [login(1)])
        await act(ready, "pause", "maintenance")
        with pytest.raises(FatalFault, match=r"paused since .*maintenance") as refused:
            await ready.run(drain_settle_s=0.3)
        assert (refused.value.code, refused.value.exit_code) == ("paused", 1)
        assert "sqs2pg resume" in refused.value.hint
        assert ready.totals.received == 0
    assert rows(database, COUNT) == [(0,)]


async def test_a_drain_that_is_paused_finishes_what_it_holds_and_ends(
    pipeline: Assemble, database: str
) -> None:
    async with pipeline() as ready:
        run = asyncio.create_task(ready.run(drain_settle_s=60))
        await send(ready, [login(i) for i in range(20)])
        await until(lambda: ready.totals.settled, during=run)
        await act(ready, "pause")
        with pytest.raises(FatalFault, match="paused"):
            await run
        assert ready.source.held_count == 0
    assert rows(database, COUNT) == [(ready.totals.written,)]


async def test_a_share_of_bad_messages_above_the_limit_pauses_the_pipeline(
    pipeline: Assemble, database: str
) -> None:
    share = {"quarantine_share_max": 0.5, "quarantine_share_messages_min": 10}
    async with pipeline(**share) as ready, running(ready) as run:
        await send(ready, ["not json"])
        await until(lambda: ready.totals.quarantined == 1, during=run)
        await send(ready, [login(i) for i in range(8)])
        await until(lambda: ready.totals.written == 8, during=run)
        assert rows(database, PAUSED) == [], "one bad of one is no reason"
        await send(ready, ["not json"] * 10)
        await until(lambda: ready.stretches.waits, during=run)
        assert rows(database, PAUSED) == [("quarantine_share", "")]
        assert metric(ready, "paused", code="quarantine_share") == 1
        assert metric(ready, "paused", code="by_operator") == 0
        [subject] = [s for (s,) in rows(database, "SELECT subject FROM sqs2pg.audit")]
        assert subject == "pipeline 1, by itself: quarantine_share_max"
        await act(ready, "resume", "the producer is mended")
        await send(ready, ["not json"])
        await until(lambda: ready.totals.quarantined == 12, during=run)
        await send(ready, [login(8)])
        await until(lambda: ready.totals.written == 9, during=run)
        assert rows(database, PAUSED) == [], "what came before the resume is not held against it"


async def test_no_more_messages_come_per_second_than_the_settings_allow(
    pipeline: Assemble,
) -> None:
    rate, seconds = 20.0, 4.0
    async with pipeline(source={"messages_per_second_max": rate}) as ready:
        await send(ready, [login(i) for i in range(300)])
        async with running(ready) as run:
            await until(lambda: ready.totals.received > 0, during=run)
            began, before = time.monotonic(), ready.totals.received
            await until(lambda: time.monotonic() >= began + seconds, during=run)
            elapsed_s, came = time.monotonic() - began, ready.totals.received - before
        assert ready.snapshot().rate_max == rate
    # A second's worth may come at once, and a poll is under way at each end.
    assert came <= rate * elapsed_s + rate + 20
    # On a machine that does much else it may be slower: not without bound.
    assert came >= rate * elapsed_s / 4
