"""S3 objects and their messages' leases: claims, twelve hours, suspects, order of FIFO groups."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
import pytest

from sqs2pg.message import Outcome
from sqs2pg.pipeline import consumer
from sqs2pg.postgres.sink import Batch, BatchResult
from sqs2pg.runners.pipeline import Pipeline
from sqs2pg.sqs import queue
from sqs2pg.sqs.wire import OutgoingMessage
from tests.integration.support import Assemble, receive, rows, send
from tests.s3_events import lines, of, of_objects
from tests.waiting import until

LEDGER = "SELECT outcome::text, count(*) FROM sqs2pg.delivery GROUP BY 1 ORDER BY 1"
CLAIMED = {"stage": "decode", "code": "object_claimed"}


def claim_elsewhere(database: str, said: str) -> None:
    """Claim the object of a notification as another worker would."""
    place = json.loads(said)["Records"][0]["s3"]
    digest = f"etag:{place['object']['eTag']}:{place['bucket']['name']}/{place['object']['key']}"
    rows(
        database,
        "INSERT INTO sqs2pg.backfill (pipeline, digest, source, size_bytes, claimed_by,"
        f" claimed_until) SELECT id, '{digest}', 'x', 1, 'another', now() + interval '1 hour'"
        " FROM sqs2pg.pipeline WHERE name = 't'",
    )


def times_claimed(ready: Pipeline) -> float:
    return ready.registry.get_sample_value("sqs2pg_faults_total", CLAIMED) or 0


async def test_after_twelve_hours_another_worker_has_the_message_and_nothing_is_doubled(
    pipeline: Assemble, database: str, bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "LEASE_TOTAL_S", 3)
    monkeypatch.setattr(consumer, "CLAIM_POLL_S", 0.1)
    chosen = of_objects(bucket) | {
        "sink": {"table": "t", "batch_rows_max": 5},
        "source": {"visibility_timeout_s": 2},
    }
    said = of(bucket.put_object(Key="k", Body=lines(f"{i:03}" for i in range(200))))
    async with pipeline(**chosen) as first, pipeline(**chosen) as second:
        reached, go_on = asyncio.Event(), asyncio.Event()
        for processor in first.processors:
            write = processor.sink.write

            async def pausing(batch: Batch, write: Any = write) -> BatchResult:
                done: BatchResult = await write(batch)
                reached.set()
                await go_on.wait()
                return done

            monkeypatch.setattr(processor.sink, "write", pausing)
        await send(first, [said])
        reading = asyncio.create_task(first.consumer.run(drain_settle_s=0.5))
        await reached.wait()
        other = asyncio.create_task(second.consumer.run(drain_settle_s=0.5))
        await until(lambda: times_claimed(second) >= 1, during=other)
        assert second.consumer.totals.received == 1
        go_on.set()
        one, two = await reading, await other
    assert (one.written, one.object_lines) == (1, 200)
    assert (two.written, two.object_lines) == (0, 0)
    # On a busy machine the second lease runs out as well, and the first worker has it once more.
    assert one.duplicate + two.duplicate >= 1
    assert rows(database, "SELECT count(*), count(DISTINCT id) FROM t") == [(200, 200)]
    assert rows(database, LEDGER) == [("written", 201)]


async def test_progress_since_a_suspects_note_clears_the_note(
    pipeline: Assemble, database: str, bucket: Any
) -> None:
    """A worker that dies after a commit has not died of the lines before it."""
    chosen = of_objects(bucket) | {"sink": {"table": "t", "batch_rows_max": 5}}
    said = of(bucket.put_object(Key="k", Body=lines(f"{i:03}" for i in range(100))))
    async with pipeline(**chosen) as ready:
        processor = ready.processors[0]
        assert processor.objects is not None
        await send(ready, [said])
        [message] = await receive(ready, 1)
        attributes = msgspec.structs.replace(message.attributes, approximate_receive_count=9)
        again = msgspec.structs.replace(message, attributes=attributes)
        assert not await processor.sink.note_suspect(processor.key_of(again), 9)
        processor.objects.stopping = lambda: True
        assert await processor.process([again]) == [Outcome.RELEASED]
        assert rows(database, "SELECT line FROM sqs2pg.backfill") == [(50,)]
        assert rows(database, "SELECT count(*) FROM sqs2pg.suspect") == [(0,)]
        # Without a commit in between the note stays: the next delivery sets the message aside.
        assert not await processor.sink.note_suspect(processor.key_of(again), 9)
        assert await processor.sink.note_suspect(processor.key_of(again), 10)


async def test_later_messages_of_a_fifo_group_do_not_overtake_one_that_waits(
    pipeline: Assemble,
    database: str,
    bucket: Any,
    fifo_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(consumer, "CLAIM_POLL_S", 0.1)
    chosen = of_objects(bucket) | {"source": {"queue": fifo_url}}
    told = [of(bucket.put_object(Key=f"k{i}", Body=lines([f"{i}"]))) for i in range(3)]
    async with pipeline(**chosen) as ready:
        claim_elsewhere(database, told[0])
        await send(
            ready,
            [
                OutgoingMessage(one, group_id="g", deduplication_id=str(i))
                for i, one in enumerate(told)
            ],
        )
        run = asyncio.create_task(ready.consumer.run(drain_settle_s=0.3))
        await until(lambda: times_claimed(ready) >= 3, during=run)
        assert rows(database, "SELECT count(*) FROM t") == [(0,)]
        rows(database, "UPDATE sqs2pg.backfill SET claimed_until = now()")
        totals = await run
        assert (totals.received, totals.written, totals.released) == (3, 3, 0)
    assert rows(database, "SELECT id FROM t ORDER BY ctid") == [("0",), ("1",), ("2",)]


async def test_each_commit_of_a_large_object_is_a_sign_of_life(
    pipeline: Assemble, database: str, bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = of_objects(bucket) | {"sink": {"table": "t", "batch_rows_max": 5}}
    said = of(bucket.put_object(Key="k", Body=lines(f"{i:03}" for i in range(200))))
    async with pipeline(**chosen) as ready:
        seen: list[int | None] = []
        tried = ready.consumer.liveness.tried

        def noted(*, settled: bool) -> None:
            assert settled
            seen.append(ready.consumer.totals.object_lines)
            tried(settled=settled)

        monkeypatch.setattr(ready.consumer.liveness, "tried", noted)
        await send(ready, [said])
        totals = await ready.consumer.run(drain_settle_s=0.3)
    assert (totals.written, totals.object_lines) == (1, 200)
    assert seen == [50, 100, 150, 200, 200, 200], "each chunk, and the end of the message"
