"""Envelopes from real endpoints: S3 objects that messages point to, messages that SNS delivers."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from typing import Any

import boto3
import pytest

from sqs2pg.message import Outcome
from sqs2pg.sqs.wire import OutgoingMessage
from tests.integration.support import Assemble, receive, rows, send

FIELDS = [
    {"source": "id", "column": "id", "required": True},
    {"source": "text", "column": "text"},
    {"column": "topic", "default": "attribute:sns.TopicArn"},
]
MIB = 2**20


@pytest.fixture
def bucket(sqs_endpoint: str, aws_environment: None) -> Iterator[Any]:
    """A fresh bucket of the local S3: a boto3 Bucket."""
    made = boto3.resource("s3", endpoint_url=sqs_endpoint).create_bucket(
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
    envelope = {"layers": ["s3"], "s3_delete": True}
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
    envelope = {"layers": ["auto"], "s3_bytes_max": 1024}
    async with pipeline(sink={"table": "t"}, field=FIELDS, envelope=envelope) as ready:
        large = put(bucket, "large", {"id": "x" * 2000})
        await send(ready, [pointer(bucket.name, "gone", 10), large, '{"id": "small"}'])
        outcomes = await ready.processors[0].process(await receive(ready, 3))
        assert outcomes.count(Outcome.QUARANTINED) == 2
        reasons = rows(database, "SELECT reason FROM sqs2pg.quarantine ORDER BY 1")
        assert reasons == [("payload_missing",), ("payload_too_large",)]


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
    pipeline: Assemble, database: str, sqs_endpoint: str, queue_url: str, sqs_client: Any
) -> None:
    sns = boto3.client("sns", endpoint_url=sqs_endpoint)
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
