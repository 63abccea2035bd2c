"""Lines of S3 objects that PostgreSQL refuses: each is set aside alone, and its object is read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from sqs2pg.message import Outcome
from sqs2pg.pipeline import backoff
from sqs2pg.pipeline.replay import Replayed
from sqs2pg.pipeline.totals import Totals
from sqs2pg.postgres.verify import verify
from sqs2pg.runners.pipeline import Pipeline
from sqs2pg.settings import Settings
from tests.integration.support import Assemble, opened, receive, rows, send, trigger_on
from tests.integration.test_object_lines import replay
from tests.s3_events import lines, of, of_objects

MakeSettings = Callable[..., Settings]
IDS = "SELECT id FROM t ORDER BY id"
REASONS = "SELECT reason, detail FROM sqs2pg.quarantine ORDER BY id"
LEDGER = "SELECT outcome::text, count(*) FROM sqs2pg.delivery GROUP BY 1 ORDER BY 1"
PROGRESS = "SELECT line, finished_at IS NOT NULL FROM sqs2pg.backfill ORDER BY line"
BAD = "^(007|030)$"
CHECK = f"ALTER TABLE t ADD CONSTRAINT no_bad CHECK (id !~ '{BAD}')"
READS = "PERFORM FROM missing"
NAMES = [f"{i:03}" for i in range(40)]


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backoff, "BACKOFF_MAX_S", 0.1)


@pytest.fixture(autouse=True)
def table(database: str) -> None:
    rows(database, "CREATE TABLE t (id text, object text)")


async def drain(ready: Pipeline) -> Totals:
    return await asyncio.wait_for(ready.consumer.run(drain_settle_s=0.2), 60)


REFUSALS = [
    pytest.param(CHECK, "23514 no_bad", id="constraint"),
    pytest.param(trigger_on("t", "id", BAD, "PERFORM 1 / 0"), "22012", id="division by zero"),
    pytest.param(trigger_on("t", "id", BAD, "RAISE SQLSTATE '57014'"), "57014", id="times out"),
    pytest.param(trigger_on("t", "id", BAD, READS), "42P01", id="missing table"),
    pytest.param(trigger_on("t", "id", BAD, "RAISE SQLSTATE 'XX000'"), "XX000", id="internal"),
]


@pytest.mark.parametrize(("refuse", "state"), REFUSALS)
async def test_a_line_that_postgresql_refuses_is_one_entry_and_the_others_are_written(
    pipeline: Assemble,
    settings: MakeSettings,
    database: str,
    bucket: Any,
    refuse: str,
    state: str,
) -> None:
    rows(database, refuse)
    chosen = of_objects(bucket)
    async with pipeline(**chosen) as ready:
        await send(ready, [of(bucket.put_object(Key="k", Body=lines(NAMES)))])
        totals = await drain(ready)
    assert (totals.written, totals.isolated, totals.object_lines) == (1, [], 40)
    place = f"s3://{bucket.name}/k line"
    found = rows(database, REASONS)
    assert [reason for reason, _ in found] == ["rejected_by_database"] * 2
    for (_, detail), line in zip(found, (8, 31), strict=True):
        assert detail.startswith(state)
        assert detail.endswith(f", {place} {line}")
    assert rows(database, IDS) == [(name,) for name in NAMES if name not in {"007", "030"}]
    assert rows(database, LEDGER) == [("quarantined", 2), ("written", 39)]
    assert rows(database, PROGRESS) == [(40, True)]
    async with opened(settings(**chosen)) as session:
        report = await verify(session, ready.sink_plan.id)
    assert report.ok, report.differences


async def test_lines_without_a_partition_are_set_aside_and_replayed_once_there_is_one(
    pipeline: Assemble, settings: MakeSettings, database: str, bucket: Any
) -> None:
    rows(
        database,
        "DROP TABLE t; CREATE TABLE t (id text, object text) PARTITION BY RANGE (id);"
        "CREATE TABLE t_0 PARTITION OF t FOR VALUES FROM ('000') TO ('038')",
    )
    chosen = of_objects(bucket)
    async with pipeline(**chosen) as ready:
        # Two objects of one piece: the second has the lines without a partition.
        small, large = lines(["001", "002"]), lines(NAMES)
        bodies = {"s": small, "l": large}
        told = [of(bucket.put_object(Key=key, Body=body)) for key, body in bodies.items()]
        await send(ready, told)
        assert (await drain(ready)).written == 2
    place = f"s3://{bucket.name}/l line"
    assert rows(database, REASONS) == [
        ("rejected_by_database", f"23514 public.t, {place} {line}") for line in (39, 40)
    ]
    assert rows(database, "SELECT count(*) FROM t") == [(2 + 38,)]
    rows(database, "CREATE TABLE t_1 PARTITION OF t FOR VALUES FROM ('038') TO ('100')")
    assert await replay(settings(**chosen)) == Replayed(replayed=2)
    assert rows(database, "SELECT count(*) FROM t") == [(2 + 40,)]


async def test_where_nothing_is_taken_no_line_is_set_aside(
    pipeline: Assemble, database: str, bucket: Any
) -> None:
    """The table is at fault: the notification waits, as any message does."""
    rows(database, trigger_on("t", "id", ".", READS))
    async with pipeline(**of_objects(bucket)) as ready:
        await send(ready, [of(bucket.put_object(Key="k", Body=lines(NAMES)))])
        totals = await drain(ready)
    assert (totals.written, len(totals.isolated)) == (0, 1)
    assert rows(database, "SELECT count(*) FROM sqs2pg.delivery") == [(0,)]
    assert rows(database, PROGRESS) == [(0, False)]


async def test_a_piece_that_another_worker_has_moved_sets_no_line_aside(
    pipeline: Assemble, database: str, bucket: Any
) -> None:
    """Its statement fails with every line, and the rehearsal passes."""
    async with pipeline(**of_objects(bucket)) as ready:
        objects = ready.processors[0].objects
        assert objects is not None
        objects.search_at_once()
        rows(
            database,
            "CREATE FUNCTION move() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            " UPDATE sqs2pg.backfill SET line = line + 1; RETURN NULL; END $$;"
            "CREATE TRIGGER move AFTER INSERT ON t FOR EACH STATEMENT EXECUTE FUNCTION move()",
        )
        await send(ready, [of(bucket.put_object(Key="k", Body=lines(NAMES)))])
        found = await receive(ready, 1)
        assert await ready.processors[0].process(found) == [Outcome.RELEASED]
    assert rows(database, "SELECT count(*) FROM sqs2pg.delivery") == [(0,)]


async def test_where_nobody_tries_again_one_failure_is_enough(
    pipeline: Assemble, database: str, bucket: Any
) -> None:
    """As in Lambda and in a replay; and what was set aside is known when it is read again."""
    rows(database, trigger_on("t", "id", "^0[02]7$", READS))
    async with pipeline(**of_objects(bucket)) as ready:
        objects = ready.processors[0].objects
        assert objects is not None
        objects.search_at_once()
        stored = bucket.put_object(Key="k", Body=lines(NAMES))
        await send(ready, [of(stored)])
        found = await receive(ready, 1)
        assert await ready.processors[0].process(found) == [Outcome.WRITTEN]
        rows(database, "UPDATE sqs2pg.backfill SET line = 0, finished_at = NULL")
        await send(ready, [of(stored)])
        assert await ready.processors[0].process(await receive(ready, 1)) == [Outcome.WRITTEN]
    assert rows(database, LEDGER) == [("quarantined", 2), ("written", 40)]
    assert rows(database, "SELECT count(*), count(DISTINCT id) FROM t") == [(38, 38)]
