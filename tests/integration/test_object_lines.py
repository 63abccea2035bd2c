"""Lines of S3 objects that meet a fault: what is set aside, and how it is replayed."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from sqs2pg.message import Outcome
from sqs2pg.pipeline.replay import Replayed
from sqs2pg.postgres.key_registry import verify_fingerprints
from sqs2pg.postgres.migrate import pipeline_id
from sqs2pg.postgres.quarantine import Selection
from sqs2pg.postgres.verify import verify
from sqs2pg.runners.assembly import assemble_replay
from sqs2pg.runners.pipeline import Pipeline
from sqs2pg.settings import Settings
from tests.integration.support import Assemble, opened, receive, rows, send
from tests.integration.test_damaged_keys import DAMAGES, damage
from tests.integration.vault_support import ON, keys_of, message, write
from tests.s3_events import lines, notification, of, of_objects

MakeSettings = Callable[..., Settings]
IDS = "SELECT id FROM t ORDER BY id"
REASONS = "SELECT reason, detail FROM sqs2pg.quarantine ORDER BY 1, 2"
OPEN = "SELECT count(*) FROM sqs2pg.quarantine WHERE replayed_at IS NULL"


async def process(ready: Pipeline, *bodies: str) -> list[Outcome]:
    await send(ready, bodies)
    return await ready.processors[0].process(await receive(ready, len(bodies)))


async def replay(settings: Settings, selection: Selection | None = None) -> Replayed:
    async with opened(settings) as session:
        keyring = await verify_fingerprints(session, keys_of(settings))
        number = await pipeline_id(session, settings)
        replayer = await assemble_replay(session, settings, keyring, number)
        done = await replayer.run(selection or Selection())
        report = await verify(session, number)
    assert report.ok, report.differences
    return done


async def test_a_bad_record_of_csv_is_one_entry_that_names_object_and_record(
    pipeline: Assemble, database: str, bucket: Any
) -> None:
    body = b'id,more\na,1\nb\nc,"x\ny"\nd,1,2\n'
    async with pipeline(**of_objects(bucket)) as ready:
        said = of(bucket.put_object(Key="x.csv", Body=body))
        assert await process(ready, said) == [Outcome.WRITTEN]
    assert rows(database, "SELECT id, object FROM t ORDER BY 1") == [
        ("a", "x.csv"),
        ("c", "x.csv"),
    ]
    place = f"s3://{bucket.name}/x.csv record"
    assert rows(database, REASONS) == [
        ("csv_fields", f"line 3 has 1 fields, the header 2, {place} 2"),
        ("csv_fields", f"line 6 has 3 fields, the header 2, {place} 4"),
    ]


@pytest.mark.parametrize("code", DAMAGES)
async def test_a_line_of_a_person_whose_key_is_damaged_is_set_aside_alone(
    pipeline: Assemble, settings: MakeSettings, database: str, bucket: Any, code: str
) -> None:
    names = ("ann", "bob", "eve", "kim", "lee", "mia", "ann")
    people = [message(name, f"192.0.2.{n}", str(n)) for n, name in enumerate(names)]
    body = b"".join(
        message(name, f"198.51.100.{n}").body.encode() + b"\n" for n, name in enumerate(names)
    )
    chosen = {**ON, "envelope": of_objects(bucket)["envelope"]}
    async with pipeline(**ON) as ready:
        await write(ready, people)
        rows(database, "CREATE TABLE backup AS SELECT * FROM pii.subject_key")
        damage(database, code)
    async with pipeline(**chosen) as ready:  # a start, with empty caches
        assert await process(ready, of(bucket.put_object(Key="k", Body=body))) == [Outcome.WRITTEN]
        place = f"s3://{bucket.name}/k line"
        assert rows(database, REASONS) == [(code, f"{place} 1"), (code, f"{place} 7")]
        assert rows(database, "SELECT count(*) FROM user_logins") == [(7 + 5,)]
        assert rows(database, "SELECT line, finished_at IS NULL FROM sqs2pg.backfill") == [
            (7, False)
        ]
    rows(
        database,
        "UPDATE pii.subject_key k SET wrapped_key = b.wrapped_key, key_version = b.key_version"
        " FROM backup b WHERE b.subject = k.subject",
    )
    assert await replay(settings(**chosen)) == Replayed(replayed=2)
    assert rows(database, "SELECT count(*) FROM user_logins") == [(14,)]


async def test_a_replay_tells_notifications_from_lines(
    pipeline: Assemble, settings: MakeSettings, database: str, bucket: Any
) -> None:
    """What kept a notification is mended: its objects are read, and it is written without a row."""
    chosen = of_objects(bucket)
    later = notification(bucket.name, "later", etag="e")
    foreign = of(bucket.put_object(Key="foreign", Body=lines(f"f{i}" for i in range(30))))
    bad = of(bucket.put_object(Key="bad", Body=lines(["a"]) + b'{"id": 7}\n' + lines(["b"])))
    removed = notification(bucket.name, "gone", event="ObjectRemoved:Delete")
    elsewhere = chosen | {
        "envelope": {"layers": ["s3_event"], "s3_buckets": ["x"], "s3_removed": "quarantine"}
    }
    async with pipeline(**elsewhere) as ready:
        assert await process(ready, foreign, removed) == [Outcome.QUARANTINED] * 2
    async with pipeline(**chosen) as ready:
        assert await process(ready, later) == [Outcome.QUARANTINED]
        assert await process(ready, bad) == [Outcome.WRITTEN]
    assert [reason for reason, _ in rows(database, REASONS)] == [
        "payload_bucket",
        "payload_missing",
        "s3_no_content",
        "wrong_type",
    ]
    assert await replay(settings(**chosen)) == Replayed(replayed=2, still_bad=2)
    assert [reason for reason, _ in rows(database, REASONS)][1:3] == [
        "payload_missing",
        "s3_no_content",
    ]
    assert rows(database, "SELECT count(*) FROM t") == [(32,)]
    assert rows(database, OPEN) == [(2,)]
    # Done before: nothing is written again.
    assert await replay(settings(**chosen)) == Replayed(still_bad=2)
    assert rows(database, "SELECT count(*), count(DISTINCT id) FROM t") == [(32, 32)]


async def test_a_replay_of_a_notification_that_was_killed_goes_on_at_the_line(
    pipeline: Assemble, settings: MakeSettings, database: str, bucket: Any
) -> None:
    chosen = of_objects(bucket) | {"sink": {"table": "t", "batch_rows_max": 5}}
    said = of(bucket.put_object(Key="k", Body=lines(f"{i:03}" for i in range(100))))
    elsewhere = chosen | {"envelope": {"layers": ["s3_event"], "s3_buckets": ["x"]}}
    async with pipeline(**elsewhere) as ready:
        assert await process(ready, said) == [Outcome.QUARANTINED]
    async with pipeline(**chosen) as ready:
        # Another delivery, of S3's second message, reads half of it.
        objects = ready.processors[0].objects
        assert objects is not None
        objects.stopping = lambda: True
        assert await process(ready, said) == [Outcome.RELEASED]
    assert rows(database, "SELECT line FROM sqs2pg.backfill") == [(50,)]
    assert await replay(settings(**chosen)) == Replayed(replayed=1)
    assert rows(database, "SELECT count(*), count(DISTINCT id) FROM t") == [(100, 100)]
    assert rows(database, "SELECT line, finished_at IS NULL FROM sqs2pg.backfill") == [(100, False)]


async def test_chunks_fit_the_memory_that_the_settings_give(
    pipeline: Assemble, database: str, bucket: Any
) -> None:
    chosen = of_objects(bucket) | {"source": {"in_flight_bytes_max": 2**20}}
    long = "x" * 10_000
    body = b"".join(json.dumps({"id": str(i), "more": long}).encode() + b"\n" for i in range(60))
    async with pipeline(**chosen) as ready:
        objects = ready.processors[0].objects
        assert objects is not None
        objects.stopping = lambda: True
        said = of(bucket.put_object(Key="k", Body=body))
        assert await process(ready, said) == [Outcome.RELEASED]
        [(reached,)] = rows(database, "SELECT line FROM sqs2pg.backfill")
    assert reached == 9, "a third of a writer's 256 KiB"


async def test_layouts_other_than_lines_are_bounded(
    pipeline: Assemble, database: str, bucket: Any
) -> None:
    some = [{"id": f"{i:03}"} for i in range(100)]
    array = json.dumps(some).encode()
    as_lines = lines(one["id"] for one in some)
    assert min(len(array), len(as_lines)) > 1024
    async with pipeline(**of_objects(bucket, s3_bytes_max=1024)) as ready:
        told = [
            of(bucket.put_object(Key="array", Body=array)),
            of(bucket.put_object(Key="lines", Body=as_lines)),
        ]
        await send(ready, told)
        messages = sorted(await receive(ready, 2), key=lambda one: "lines" in one.body)
        outcomes = await ready.processors[0].process(messages)
        assert outcomes == [Outcome.QUARANTINED, Outcome.WRITTEN]
    assert rows(database, REASONS) == [("payload_too_large", f"s3://{bucket.name}/array record 0")]
    assert rows(database, "SELECT count(*) FROM t WHERE object = 'lines'") == [(100,)]


async def test_attributes_of_the_notification_reach_its_lines(
    pipeline: Assemble, database: str, bucket: Any
) -> None:
    fields = [
        {"source": "id", "column": "id"},
        {"column": "topic", "default": "attribute:sns.TopicArn"},
        {"column": "bucket", "default": "attribute:s3.bucket"},
    ]
    chosen = of_objects(bucket, layers=["sns", "s3_event"]) | {"field": fields}
    said = of(bucket.put_object(Key="k", Body=lines(["a"])))
    told = {"Type": "Notification", "MessageId": "m", "TopicArn": "arn:x", "Timestamp": "2026"}
    async with pipeline(**chosen) as ready:
        assert await process(ready, json.dumps(told | {"Message": said})) == [Outcome.WRITTEN]
    assert rows(database, "SELECT id, topic, bucket FROM t") == [("a", "arn:x", bucket.name)]


async def test_an_object_whose_day_is_ahead_is_written(
    pipeline: Assemble, database: str, bucket: Any
) -> None:
    async with pipeline(**of_objects(bucket)) as ready:
        said = of(bucket.put_object(Key="2099/01/02/k", Body=lines(["a"])))
        assert await process(ready, said) == [Outcome.WRITTEN]
    assert rows(database, IDS) == [("a",)]


async def test_lines_keep_one_row_per_key_where_the_table_says_so(
    pipeline: Assemble, database: str, bucket: Any
) -> None:
    """The last line wins, in one object and over two."""
    fields = [
        {"source": "id", "column": "id", "required": True},
        {"source": "n", "column": "n", "type": "integer"},
    ]
    chosen = of_objects(bucket) | {
        "field": fields,
        "sink": {"table": "t", "mode": "upsert", "key": ["id"], "newer": "n"},
    }

    def states(*numbers: int) -> bytes:
        return b"".join(json.dumps({"id": "a", "n": n}).encode() + b"\n" for n in numbers)

    rows(database, "CREATE TABLE t (id text PRIMARY KEY, n integer)")
    async with pipeline(**chosen) as ready:
        told = [of(bucket.put_object(Key=f"k{i}", Body=states(i, i + 5, i + 3))) for i in range(3)]
        assert await process(ready, *told) == [Outcome.WRITTEN] * 3
    assert rows(database, "SELECT id, n FROM t") == [("a", 7)]
