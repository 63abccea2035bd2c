"""Envelopes from real endpoints: S3 objects that messages point to, messages that SNS delivers."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from structlog.testing import capture_logs

from sqs2pg.errors import Stage, TransientFault
from sqs2pg.message import Outcome
from sqs2pg.pipeline import isolation
from sqs2pg.sqs.s3 import ObjectStore
from sqs2pg.sqs.wire import OutgoingMessage
from tests.integration.support import Assemble, receive, rows, send
from tests.waiting import until

FIELDS = [
    {"source": "id", "column": "id", "required": True},
    {"source": "text", "column": "text"},
    {"column": "topic", "default": "attribute:sns.TopicArn"},
]
MIB = 2**20


@pytest.fixture
def bucket(emulator_endpoint: str, aws_environment: None) -> Iterator[Any]:
    """A fresh bucket of the local S3: a boto3 Bucket."""
    made = boto3.resource("s3", endpoint_url=emulator_endpoint).create_bucket(
        Bucket=f"payloads-{secrets.token_hex(6)}"
    )
    yield made
    made.objects.all().delete()
    made.delete()


def pointer(bucket: str, key: str, size: int) -> OutgoingMessage:
    """As the extended clients send it."""
    place = {"s3BucketName": bucket, "s3Key": key}
    body = json.dumps(["software.amazon.payloadoffloading.PayloadS3Pointer", place])
    return OutgoingMessage(body, attributes={"ExtendedPayloadSize": str(size)})


def put(bucket: Any, key: str, document: Any) -> OutgoingMessage:
    body = json.dumps(document).encode()
    bucket.put_object(Key=key, Body=body)
    return pointer(bucket.name, key, len(body))


async def test_payloads_of_five_mebibytes_are_fetched_written_and_deleted(
    pipeline: Assemble, database: str, bucket: Any
) -> None:
    envelope = {"layers": ["s3"], "s3_delete": True, "s3_buckets": [bucket.name]}
    async with pipeline(sink={"table": "t"}, field=FIELDS, envelope=envelope) as ready:
        large = [put(bucket, f"k{i}", {"id": f"s{i}", "text": "x" * 5 * MIB}) for i in range(3)]
        bad = put(bucket, "bad", {"text": "no id"})
        await send(ready, [*large, bad, '{"id": "small"}'])
        messages = await receive(ready, 5)
        outcomes = await ready.processors[0].process(messages)
        assert (outcomes.count(Outcome.WRITTEN), outcomes.count(Outcome.QUARANTINED)) == (4, 1)
        found = rows(database, "SELECT id, length(text) FROM t ORDER BY id")
        assert found == [*((f"s{i}", 5 * MIB) for i in range(3)), ("small", None)]
        # A quarantined message keeps its object, for a replay.
        assert [one.key for one in bucket.objects.all()] == ["bad"]
        assert all(message.payload is None for message in messages)
        # A redelivery of a deleted message: the ledger knows it.
        again = await ready.processors[1].process(messages)
        assert set(again) == {Outcome.DUPLICATE}


async def test_an_object_that_is_gone_or_too_large_sets_its_message_aside(
    pipeline: Assemble, database: str, bucket: Any
) -> None:
    envelope = {"layers": ["auto"], "s3_bytes_max": 1024, "s3_buckets": [bucket.name]}
    async with pipeline(sink={"table": "t"}, field=FIELDS, envelope=envelope) as ready:
        large = put(bucket, "large", {"id": "x" * 2000})
        await send(ready, [pointer(bucket.name, "gone", 10), large, '{"id": "small"}'])
        outcomes = await ready.processors[0].process(await receive(ready, 3))
        assert outcomes.count(Outcome.QUARANTINED) == 2
        reasons = rows(database, "SELECT reason FROM sqs2pg.quarantine ORDER BY 1")
        assert reasons == [("payload_missing",), ("payload_too_large",)]


async def test_a_pointer_to_a_bucket_that_is_not_there_is_its_own_message_s_fault(
    pipeline: Assemble, database: str, bucket: Any
) -> None:
    async with pipeline(sink={"table": "t"}, field=FIELDS, envelope={"layers": ["s3"]}) as ready:
        good = [put(bucket, f"k{i}", {"id": f"s{i}"}) for i in range(3)]
        bad = [
            pointer(f"no-such-{secrets.token_hex(6)}", "k", 10),
            pointer("Not_A_Bucket", "k", 10),
            pointer(bucket.name, "k" * 1025, 10),
            pointer("arn:aws:s3:::elsewhere", "k", 10),
        ]
        # A size that a careless test takes for a number.
        odd = OutgoingMessage('{"id": "small"}', attributes={"ExtendedPayloadSize": "\u00b2"})
        await send(ready, [*bad, *good, odd])
        totals = await ready.consumer.run(drain_settle_s=0.5)
        assert (totals.written, totals.quarantined, totals.released) == (4, 4, 0)
    found = rows(database, "SELECT reason, detail FROM sqs2pg.quarantine ORDER BY 1, 2")
    assert found == [
        ("payload_bucket", ""),
        ("payload_missing", "s3BucketName"),
        ("payload_missing", "s3BucketName"),
        ("payload_missing", "s3Key"),
    ]


@pytest.mark.parametrize("layers", ["s3", "auto"])
async def test_no_call_is_made_for_a_bucket_that_no_setting_names(
    pipeline: Assemble,
    database: str,
    bucket: Any,
    monkeypatch: pytest.MonkeyPatch,
    layers: str,
) -> None:
    asked: list[Any] = []

    async def noting(*arguments: Any) -> None:
        asked.append(arguments)

    monkeypatch.setattr(ObjectStore, "fetch", noting)
    monkeypatch.setattr(ObjectStore, "delete", noting)
    envelope: dict[str, Any] = {"layers": [layers]}
    if layers == "s3":
        envelope |= {"s3_buckets": ["payloads"], "s3_delete": True}
    async with pipeline(sink={"table": "t"}, field=FIELDS, envelope=envelope) as ready:
        await send(ready, [put(bucket, "k", {"id": "s"}), '{"id": "small"}'])
        outcomes = await ready.processors[0].process(await receive(ready, 2))
        assert set(outcomes) == {Outcome.WRITTEN, Outcome.QUARANTINED}
        assert rows(database, "SELECT reason FROM sqs2pg.quarantine") == [("payload_bucket",)]
    assert asked == []
    assert [one.key for one in bucket.objects.all()] == ["k"]


async def test_an_object_that_s3_refuses_holds_no_other_message(
    pipeline: Assemble, database: str, bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(isolation, "AWAY_FIRST_S", 1)
    fetch = ObjectStore.fetch
    closed = True

    async def refusing(store: ObjectStore, bucket: str, key: str, bytes_max: int) -> bytes:
        if closed and key == "k3":
            raise TransientFault("no", code="s3_denied", stage=Stage.DECODE)
        return await fetch(store, bucket, key, bytes_max)

    monkeypatch.setattr(ObjectStore, "fetch", refusing)
    count = "SELECT count(*) FROM t"
    envelope = {"layers": ["s3"], "s3_buckets": [bucket.name]}
    async with pipeline(sink={"table": "t"}, field=FIELDS, envelope=envelope) as ready:
        await send(ready, [put(bucket, f"k{i}", {"id": f"s{i}"}) for i in range(6)])
        with capture_logs() as logs:
            run = asyncio.create_task(ready.consumer.run())
            await until(lambda: rows(database, count) == [(5,)], 60)
            await until(lambda: any(e["event"] == "messages are isolated" for e in logs), 60)
            closed = False
            await until(lambda: rows(database, count) == [(6,)], 60)
            ready.consumer.stop()
            await run
        [told, *_] = [entry for entry in logs if entry["event"] == "messages are isolated"]
        assert (told["code"], told["messages"]) == ("s3_denied", 1)
    assert rows(database, "SELECT count(*) FROM sqs2pg.quarantine") == [(0,)]


async def test_a_store_that_is_away_releases_and_sets_nothing_aside(
    pipeline: Assemble, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    async with pipeline(sink={"table": "t"}, field=FIELDS, envelope={"layers": ["s3"]}) as ready:
        await send(ready, ['{"id": "before"}', pointer("b", "k", 10)])
        outcomes = await ready.processors[0].process(await receive(ready, 2))
        assert set(outcomes) == {Outcome.RELEASED}
        assert ready.processors[0].last_fault is not None
        assert ready.processors[0].last_fault.code == "s3_unreachable"
        assert rows(database, "SELECT count(*) FROM sqs2pg.quarantine") == [(0,)]


async def test_what_sns_delivers_is_unwrapped(
    pipeline: Assemble, database: str, emulator_endpoint: str, queue_url: str, sqs_client: Any
) -> None:
    sns = boto3.client("sns", endpoint_url=emulator_endpoint)
    topic = sns.create_topic(Name=f"orders-{secrets.token_hex(6)}")["TopicArn"]
    arn = sqs_client.get_queue_attributes(QueueUrl=queue_url, AttributeNames=["QueueArn"])
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn["Attributes"]["QueueArn"])
    for layers in (["sns"], ["auto"]):
        async with pipeline(
            name="of_sns", sink={"table": "t"}, field=FIELDS, envelope={"layers": layers}
        ) as ready:
            sns.publish(TopicArn=topic, Message=json.dumps({"id": layers[0]}))
            outcomes = await ready.processors[0].process(await receive(ready, 1))
            assert outcomes == [Outcome.WRITTEN]
    assert rows(database, "SELECT id, topic FROM t ORDER BY id") == [
        ("auto", topic),
        ("sns", topic),
    ]
