"""S3 notifications: their objects are read from a real server, line by line, exactly once."""

from __future__ import annotations

import asyncio
import gzip
import json
import secrets
import sys
from typing import Any, cast

import pytest

from sqs2pg.message import Outcome
from sqs2pg.pipeline import consumer
from sqs2pg.postgres.migrate import pipeline_id
from sqs2pg.postgres.sink import Batch, BatchResult
from sqs2pg.postgres.verify import verify
from sqs2pg.runners.assembly import assemble_backfill
from sqs2pg.runners.pipeline import Pipeline
from sqs2pg.sqs.s3 import ObjectStore
from tests.integration.support import Assemble, opened, receive, rows, send
from tests.s3_events import (
    lines,
    made_bucket,
    notification,
    notify,
    of,
    of_objects,
    packed,
    removed_bucket,
)
from tests.waiting import until

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

IDS = "SELECT id FROM t ORDER BY id"
LEDGER = "SELECT outcome::text, count(*) FROM sqs2pg.delivery GROUP BY 1 ORDER BY 1"


async def drained(ready: Pipeline) -> Any:
    return await ready.consumer.run(drain_settle_s=0.3)


async def assert_books_balance(ready: Pipeline) -> None:
    async with opened(ready.settings) as session:
        report = await verify(session, await pipeline_id(session, ready.settings))
    assert report.ok, report.differences


async def test_objects_become_rows_and_their_messages_are_deleted(
    pipeline: Assemble, database: str, bucket: Any, queue_url: str, sqs_client: Any
) -> None:
    notify(bucket, queue_url, sqs_client)  # brings a test event
    key = "2026/01/02/log +%€.jsonl"
    bucket.put_object(Key=key, Body=lines(["a", "b"]))
    bucket.put_object(Key="packed", Body=packed(f"g{i}" for i in range(300)))
    bucket.put_object(Key="zstd", Body=zstd.compress(lines(["z"])))
    bucket.put_object(Key="empty", Body=b"")
    async with pipeline(**of_objects(bucket)) as ready:
        totals = await drained(ready)
        assert (totals.received, totals.written, totals.object_lines) == (5, 5, 303)
        await assert_books_balance(ready)
        told = {
            sample.labels["kind"]: sample.value
            for family in ready.registry.collect()
            if family.name == "sqs2pg_objects"
            for sample in family.samples
            if sample.name.endswith("_total")
        }
    assert told == {"read": 4, "test": 1}
    assert rows(database, IDS) == [
        (i,) for i in sorted(["a", "b", "z", *(f"g{i}" for i in range(300))])
    ]
    assert rows(database, "SELECT DISTINCT object FROM t WHERE id IN ('a', 'b')") == [(key,)]
    assert rows(database, LEDGER) == [("written", 308)]
    assert rows(database, "SELECT count(*) FROM sqs2pg.quarantine") == [(0,)]
    finished = "SELECT source, line, finished_at IS NOT NULL, claimed_until FROM sqs2pg.backfill"
    assert sorted(rows(database, finished)) == sorted(
        (f"s3://{bucket.name}/{name}", count, True, None)
        for name, count in [(key, 2), ("packed", 300), ("zstd", 1), ("empty", 0)]
    )
    counts = sqs_client.get_queue_attributes(QueueUrl=queue_url, AttributeNames=["All"])
    assert counts["Attributes"]["ApproximateNumberOfMessagesNotVisible"] == "0"


async def test_a_notification_that_comes_twice_changes_nothing(
    pipeline: Assemble, database: str, bucket: Any
) -> None:
    said = of(bucket.put_object(Key="k", Body=lines(["a", "b"])))
    async with pipeline(**of_objects(bucket)) as ready:
        # S3 sends a second message; SQS delivers the first one again.
        await send(ready, [said, said])
        messages = await receive(ready, 2)
        outcomes = await ready.processors[0].process(messages)
        assert outcomes == [Outcome.WRITTEN] * 2
        again = await ready.processors[1].process([*messages, messages[0]])
        assert again == [Outcome.DUPLICATE] * 3
        assert rows(database, IDS) == [("a",), ("b",)]
        assert rows(database, LEDGER) == [("written", 4)]
        await assert_books_balance(ready)


async def test_one_bad_line_is_one_entry_that_names_object_and_line(
    pipeline: Assemble, database: str, bucket: Any
) -> None:
    body = lines(["a"]) + b'{"id": 7}\nnot json\n' + lines(["b"])
    said = of(bucket.put_object(Key="bad", Body=body))
    async with pipeline(**of_objects(bucket)) as ready:
        await send(ready, [said])
        assert await ready.processors[0].process(await receive(ready, 1)) == [Outcome.WRITTEN]
        await assert_books_balance(ready)
    assert rows(database, IDS) == [("a",), ("b",)]
    place = f"s3://{bucket.name}/bad line"
    assert rows(database, "SELECT reason, detail FROM sqs2pg.quarantine ORDER BY 1") == [
        ("not_json", f"{place} 3"),
        ("wrong_type", f"id, {place} 2"),
    ]


async def test_objects_of_other_layouts_are_read_record_by_record(
    pipeline: Assemble, database: str, bucket: Any
) -> None:
    events = [{"timestamp": 1, "message": json.dumps({"id": name})} for name in "cd"]
    batch = {"owner": "1", "messageType": "DATA_MESSAGE", "logEvents": events}
    told = [
        of(
            bucket.put_object(Key="trail", Body=json.dumps({"Records": [{"id": "a"}, {"id": "b"}]}))
        ),
        of(
            bucket.put_object(
                Key="logs", Body=packed([]) + gzip.compress(json.dumps(batch).encode())
            )
        ),
    ]
    async with pipeline(**of_objects(bucket)) as ready:
        await send(ready, told)
        assert await ready.processors[0].process(await receive(ready, 2)) == [Outcome.WRITTEN] * 2
    assert rows(database, IDS) == [(name,) for name in "abcd"]
    space = of(bucket.put_object(Key="flow", Body=b"version id\n2 e\n2 -\n2\n"))
    declared = {**of_objects(bucket), "archive": {"format": "space"}}
    async with pipeline(**declared) as ready:
        await send(ready, [space])
        assert await ready.processors[0].process(await receive(ready, 1)) == [Outcome.WRITTEN]
        await assert_books_balance(ready)
    assert rows(database, IDS) == [(name,) for name in "abcde"]
    assert sorted(
        reason for (reason,) in rows(database, "SELECT reason FROM sqs2pg.quarantine")
    ) == [
        "missing_field",
        "space_fields",
    ]


async def test_what_names_no_object_to_read_is_refused_or_ignored_by_itself(
    pipeline: Assemble, database: str, bucket: Any
) -> None:
    good = of(bucket.put_object(Key="good", Body=lines(["a"])))
    removed = notification(bucket.name, "gone", event="ObjectRemoved:Delete")
    bodies = [
        notification("elsewhere", "k", etag="e"),
        notification(bucket.name, "missing", etag="e"),
        json.dumps({"id": "no notification"}),
        json.dumps({"Records": [{"eventSource": "aws:ses", "eventName": "x"}]}),
        "no JSON",
        removed,
        json.dumps({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "elsewhere"}),
        good,
    ]
    async with pipeline(**of_objects(bucket)) as ready:
        await send(ready, bodies)
        totals = await drained(ready)
        assert (totals.received, totals.written, totals.quarantined) == (8, 3, 5)
        await assert_books_balance(ready)
    found = rows(database, "SELECT reason, detail FROM sqs2pg.quarantine ORDER BY 1, 2")
    assert found == [
        ("not_s3_event", ""),
        ("not_s3_event", "Records"),
        ("not_s3_event", "eventSource"),
        ("payload_bucket", ""),
        ("payload_missing", f"s3://{bucket.name}/missing line 0"),
    ]
    assert rows(database, IDS) == [("a",)]


async def test_removals_are_refused_where_the_settings_say_so(
    pipeline: Assemble, database: str, bucket: Any
) -> None:
    async with pipeline(**of_objects(bucket, s3_removed="quarantine")) as ready:
        await send(ready, [notification(bucket.name, "gone", event="ObjectRemoved:Delete")])
        assert (await drained(ready)).quarantined == 1
    reasons = rows(database, "SELECT reason, detail FROM sqs2pg.quarantine")
    assert reasons == [("s3_no_content", "eventName")]


async def test_an_object_that_was_replaced_is_set_aside_with_the_line_reached(
    pipeline: Assemble, database: str, bucket: Any
) -> None:
    stored = bucket.put_object(Key="k", Body=lines(f"old{i:03}" for i in range(100)))
    said = of(stored)
    overrides = of_objects(bucket) | {"sink": {"table": "t", "batch_rows_max": 5}}
    async with pipeline(**overrides) as ready:
        objects = ready.processors[0].objects
        assert objects is not None
        objects.stopping = lambda: True  # after the first commit, which has 50 lines
        await send(ready, [said])
        messages = await receive(ready, 1)
        assert await ready.processors[0].process(messages) == [Outcome.RELEASED]
        assert rows(database, "SELECT line FROM sqs2pg.backfill") == [(50,)]
        bucket.put_object(Key="k", Body=lines(["new"]))
        objects.stopping = lambda: False
        assert await ready.processors[1].process(messages) == [Outcome.QUARANTINED]
        # Its own notification comes too, and out of order.
        await send(ready, [of(stored)])
        assert await ready.processors[0].process(await receive(ready, 1)) == [Outcome.WRITTEN]
        await assert_books_balance(ready)
    assert rows(database, "SELECT reason, detail FROM sqs2pg.quarantine") == [
        ("object_replaced", f"s3://{bucket.name}/k line 50")
    ]
    assert len(rows(database, IDS)) == 51


async def test_each_version_of_an_object_is_read_by_its_id(
    pipeline: Assemble, database: str, versioned: Any
) -> None:
    stored = versioned.put_object(Key="k", Body=lines(["first"]))
    first = of(stored)
    versioned.put_object(Key="k", Body=lines(["second"]))
    second = of(stored)
    same = of(versioned.put_object(Key="k", Body=lines(["second"])))
    async with pipeline(**of_objects(versioned)) as ready:
        await send(ready, [second, same, first])
        assert (await drained(ready)).written == 3
    assert rows(database, IDS) == [("first",), ("second",), ("second",)]


async def test_two_workers_do_not_read_one_object_at_once(
    pipeline: Assemble, database: str, bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = of(bucket.put_object(Key="k", Body=lines(f"{i:03}" for i in range(100))))
    overrides = of_objects(bucket) | {"sink": {"table": "t", "batch_rows_max": 5}}
    async with pipeline(**overrides) as ready:
        one, other = ready.processors
        await send(ready, [said, said])
        first, second = await receive(ready, 2)
        reached, go_on = asyncio.Event(), asyncio.Event()
        write = one.sink.write

        async def pausing(batch: Batch) -> BatchResult:
            done = await write(batch)
            reached.set()
            await go_on.wait()
            return done

        monkeypatch.setattr(one.sink, "write", pausing)
        reading = asyncio.create_task(one.process([first]))
        await reached.wait()
        assert await other.process([second]) == [Outcome.RELEASED]
        assert other.last_fault is not None
        assert other.last_fault.code == "object_claimed"
        go_on.set()
        assert await reading == [Outcome.WRITTEN]
        assert await other.process([second]) == [Outcome.WRITTEN]
    assert len(rows(database, IDS)) == 100
    assert rows(database, LEDGER) == [("written", 102)]


async def test_a_worker_that_lost_its_claim_commits_nothing(
    pipeline: Assemble, database: str, bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = of(bucket.put_object(Key="k", Body=lines(f"{i:03}" for i in range(100))))
    overrides = of_objects(bucket) | {"sink": {"table": "t", "batch_rows_max": 5}}
    async with pipeline(**overrides) as ready:
        one, other = ready.processors
        await send(ready, [said, said])
        first, second = await receive(ready, 2)
        rest: list[Outcome] = []

        async def overtaken() -> None:
            rows(database, "UPDATE sqs2pg.backfill SET claimed_until = now()")
            rest.extend(await other.process([second]))

        write = one.sink.write
        calls = 0

        async def late(batch: Batch) -> BatchResult:
            nonlocal calls
            calls += 1
            if calls == 2:
                await overtaken()
            return await write(batch)

        monkeypatch.setattr(one.sink, "write", late)
        assert await one.process([first]) == [Outcome.RELEASED]
        assert rest == [Outcome.WRITTEN]
        assert one.last_fault is not None
        assert one.last_fault.code == "postgres_40001"
        assert await one.process([first]) == [Outcome.WRITTEN]
        await assert_books_balance(ready)
    assert len(rows(database, IDS)) == 100
    assert rows(database, LEDGER) == [("written", 102)]


async def test_a_store_that_is_away_holds_the_message(
    pipeline: Assemble, database: str, bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    async with pipeline(**of_objects(bucket)) as ready:
        await send(ready, [notification(bucket.name, "k", etag="e")])
        assert await ready.processors[0].process(await receive(ready, 1)) == [Outcome.RELEASED]
        assert ready.processors[0].last_fault is not None
        assert ready.processors[0].last_fault.code == "s3_unreachable"
    assert rows(database, LEDGER) == []


async def test_sns_and_eventbridge_bring_notifications_too(
    pipeline: Assemble, database: str, bucket: Any
) -> None:
    stored = bucket.put_object(Key="a b+c", Body=lines(["sns"]))
    told = {"Type": "Notification", "MessageId": "m", "TopicArn": "arn", "Timestamp": "2026"}
    overrides = of_objects(bucket, layers=["sns", "s3_event"])
    async with pipeline(**overrides) as ready:
        await send(ready, [json.dumps(told | {"Message": of(stored)})])
        assert (await drained(ready)).written == 1
    bucket.put_object(Key="a b+c", Body=lines(["eventbridge"]))
    stored.load()
    event = {
        "version": "0",
        "id": "i",
        "source": "aws.s3",
        "account": "1",
        "region": "r",
        "detail-type": "Object Created",
        "time": "2026-01-02T03:04:05Z",
        "detail": {
            "version": "0",
            "bucket": {"name": bucket.name},
            "object": {"key": "a b+c", "size": 5, "etag": stored.e_tag.strip('"')},
        },
    }
    overrides = of_objects(bucket, layers=["eventbridge", "s3_event"])
    deleted = event | {"detail-type": "Object Deleted"}
    async with pipeline(**overrides) as ready:
        await send(ready, [json.dumps(event), json.dumps(deleted)])
        assert (await drained(ready)).written == 2
    assert rows(database, "SELECT id, object FROM t ORDER BY 1") == [
        ("eventbridge", "a b+c"),
        ("sns", "a b+c"),
    ]


@pytest.mark.parametrize("versions", [False, True])
async def test_backfill_and_notifications_know_an_object_by_one_identity(
    pipeline: Assemble, database: str, emulator_endpoint: str, aws_environment: None, versions: bool
) -> None:
    kept = made_bucket(emulator_endpoint, f"both-{secrets.token_hex(6)}", versions=versions)
    overrides = of_objects(kept) | {"sink": {"table": "t", "batch_rows_max": 5}}
    one = kept.put_object(Key="2025/01/02/one", Body=lines(f"a{i:02}" for i in range(99)))
    other = kept.put_object(Key="other", Body=lines(["b"]))
    try:
        async with pipeline(**overrides) as ready:
            objects = ready.processors[0].objects
            assert objects is not None
            objects.stopping = lambda: True
            await send(ready, [of(one), of(other)])
            messages = await receive(ready, 2)
            messages.sort(key=lambda message: "other" in message.body)
            outcomes = await ready.processors[0].process(messages)
            assert outcomes == [Outcome.RELEASED] * 2
            assert rows(database, "SELECT sum(line) FROM sqs2pg.backfill") == [(50,)]
            async with assemble_backfill(ready.settings) as begin:
                work = begin(store=ObjectStore())
                done = await work.run([f"s3://{kept.name}/2025/"])
                assert (done.resumed, done.lines, done.duplicate) == (50, 49, 0)
            objects.stopping = lambda: False
            assert await ready.processors[0].process(messages) == [Outcome.WRITTEN] * 2
            async with assemble_backfill(ready.settings) as begin:
                done = await begin(store=ObjectStore()).run([f"s3://{kept.name}/"])
                assert (done.skipped, done.lines) == (2, 0)
            await assert_books_balance(ready)
        assert rows(database, LEDGER) == [("written", 102)]
        assert rows(database, "SELECT count(DISTINCT id) FROM t") == [(100,)]
    finally:
        removed_bucket(kept)


async def test_a_stop_leaves_the_rest_of_an_object_to_the_next_run(
    pipeline: Assemble, database: str, bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = of(bucket.put_object(Key="k", Body=lines(f"{i:03}" for i in range(200))))
    overrides = of_objects(bucket) | {"sink": {"table": "t", "batch_rows_max": 5}}
    async with pipeline(**overrides) as ready:
        await send(ready, [said])
        for processor in ready.processors:
            write = processor.sink.write

            async def stopping(batch: Batch, write: Any = write) -> BatchResult:
                ready.consumer.stop()
                return cast("BatchResult", await write(batch))

            monkeypatch.setattr(processor.sink, "write", stopping)
        totals = await ready.consumer.run()
        assert (totals.released, totals.object_lines) == (1, 50)
    # The claim was given back, so nobody has to wait until it runs out.
    assert rows(database, "SELECT line, claimed_until FROM sqs2pg.backfill") == [(50, None)]
    async with pipeline(**overrides) as ready:
        totals = await drained(ready)
        assert (totals.written, totals.object_lines) == (1, 150)
        await assert_books_balance(ready)
    assert rows(database, "SELECT count(DISTINCT id) FROM t") == [(200,)]


async def test_a_message_whose_object_is_read_elsewhere_is_held_until_that_is_done(
    pipeline: Assemble, database: str, bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer, "CLAIM_POLL_S", 0.1)
    said = of(bucket.put_object(Key="k", Body=lines(["a"])))
    claim = """INSERT INTO sqs2pg.backfill
        (pipeline, digest, source, size_bytes, claimed_by, claimed_until)
        SELECT id, 'etag:{etag}:{place}', 'x', 1, 'another', now() + interval '1 hour'
        FROM sqs2pg.pipeline WHERE name = 't'"""
    etag = json.loads(said)["Records"][0]["s3"]["object"]["eTag"]
    async with pipeline(**of_objects(bucket)) as ready:
        rows(database, claim.format(etag=etag, place=f"{bucket.name}/k"))
        await send(ready, [said])
        run = asyncio.create_task(ready.consumer.run(drain_settle_s=0.3))
        met = {"stage": "decode", "code": "object_claimed"}
        count = ready.registry.get_sample_value
        await until(lambda: (count("sqs2pg_faults_total", met) or 0) >= 2, during=run)
        rows(database, "UPDATE sqs2pg.backfill SET claimed_until = now()")
        totals = await run
        assert (totals.received, totals.written, totals.released) == (1, 1, 0)
    assert rows(database, IDS) == [("a",)]
