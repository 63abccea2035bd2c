"""What comes with a message beside its body, as it reaches a column, whichever way it came."""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Callable
from typing import Any

import boto3
import msgspec
import pytest

from sqs2pg.cli.quarantine import replay_selected
from sqs2pg.message import Message, MessageAttribute, Outcome, SystemAttributes
from sqs2pg.pipeline.replay import Replayed
from sqs2pg.postgres.quarantine import Selection
from sqs2pg.runners.lambda_event import messages_of
from sqs2pg.settings import Settings
from tests.integration.support import Assemble, receive, rows
from tests.runtime_api import record

RAW = b"\x00\xff\x7f"
FIELDS = [
    {"source": "id", "column": "id"},
    {"column": "tenant", "default": "attribute:tenant"},
    {"column": "raw", "default": "attribute:raw"},
    {"source": "attribute:raw", "column": "data", "type": "bytea"},
]
BINARY = "SELECT tenant, raw, encode(data, 'hex') FROM t ORDER BY tenant NULLS LAST"
OF_RAW = ("blue", base64.b64encode(RAW).decode(), RAW.hex())
ATTRIBUTES = {
    "tenant": {"DataType": "String", "StringValue": "blue"},
    "raw": {"DataType": "Binary", "BinaryValue": RAW},
}


async def test_a_binary_attribute_is_its_base64(
    pipeline: Assemble, database: str, sqs_client: Any, queue_url: str
) -> None:
    odd = ATTRIBUTES | {"raw": {"DataType": "Binary.png", "BinaryValue": RAW}}
    async with pipeline(sink={"table": "t"}, field=FIELDS) as ready:
        for given in (odd, {}):
            sqs_client.send_message(
                QueueUrl=queue_url, MessageBody='{"id": "a"}', MessageAttributes=given
            )
        await ready.processors[0].process(await receive(ready, 2))
    assert rows(database, BINARY) == [OF_RAW, (None, None, None)]


async def test_a_binary_attribute_comes_through_sns_as_it_is(
    pipeline: Assemble, database: str, sqs_client: Any, emulator_endpoint: str, queue_url: str
) -> None:
    sns = boto3.client("sns", endpoint_url=emulator_endpoint)
    topic = sns.create_topic(Name=f"raw-{secrets.token_hex(6)}")["TopicArn"]
    arn = sqs_client.get_queue_attributes(QueueUrl=queue_url, AttributeNames=["QueueArn"])
    sns.subscribe(
        TopicArn=topic,
        Protocol="sqs",
        Endpoint=arn["Attributes"]["QueueArn"],
        Attributes={"RawMessageDelivery": "true"},
    )
    async with pipeline(sink={"table": "t"}, field=FIELDS) as ready:
        sns.publish(TopicArn=topic, Message='{"id": "a"}', MessageAttributes=ATTRIBUTES)
        await ready.processors[0].process(await receive(ready, 1))
    assert rows(database, BINARY) == [OF_RAW]


@pytest.mark.parametrize("layers", ["sns", "auto"])
async def test_a_binary_attribute_comes_in_a_notification_of_sns(
    pipeline: Assemble, database: str, sqs_client: Any, queue_url: str, layers: str
) -> None:
    # As the SNS developer guide has it. The server of the tests leaves binary values out.
    notification = {
        "Type": "Notification",
        "MessageId": "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324",
        "TopicArn": "arn:aws:sns:us-west-2:123456789012:MyTopic",
        "Message": '{"id": "a"}',
        "Timestamp": "2012-05-02T00:54:06.655Z",
        "MessageAttributes": {
            "tenant": {"Type": "String", "Value": "blue"},
            "raw": {"Type": "Binary", "Value": OF_RAW[1]},
        },
    }
    envelope = {"layers": [layers]}
    async with pipeline(sink={"table": "t"}, field=FIELDS, envelope=envelope) as ready:
        sqs_client.send_message(QueueUrl=queue_url, MessageBody=json.dumps(notification))
        await ready.processors[0].process(await receive(ready, 1))
    assert rows(database, BINARY) == [OF_RAW]


async def test_a_binary_attribute_comes_in_an_event_of_lambda(
    pipeline: Assemble, database: str
) -> None:
    one = record("00000000-0000-4000-8000-000000000001", '{"id": "a"}')
    one["messageAttributes"] = {
        "tenant": {"stringValue": "blue", "stringListValues": [], "binaryListValues": [],
                   "dataType": "String"},
        "raw": {"binaryValue": OF_RAW[1], "stringListValues": [], "binaryListValues": [],
                "dataType": "Binary"},
    }  # fmt: skip
    messages, _ = messages_of({"Records": [one]})
    async with pipeline(sink={"table": "t"}, field=FIELDS) as ready:
        await ready.processors[0].process(messages)
    assert rows(database, BINARY) == [OF_RAW]


SYSTEM_FIELDS = [
    {"source": "id", "column": "id"},
    {"source": "sqs:MessageGroupId", "column": "grp", "default": "-"},
    {"source": "sqs:SequenceNumber", "column": "seq", "type": "numeric"},
    {"source": "sqs:SentTimestamp", "column": "sent_ms", "type": "bigint"},
    {"source": "sqs:ApproximateReceiveCount", "column": "receives", "type": "integer"},
    {"source": "sqs:MessageDeduplicationId", "column": "dedup"},
    {"source": "sqs:ApproximateFirstReceiveTimestamp", "column": "first_ms", "type": "bigint"},
    {"source": "sqs:SenderId", "column": "sender", "mask": "pseudonymize"},
    {"source": "sqs:MessageId", "column": "message", "type": "uuid"},
    {"column": "dlq", "default": "sqs:DeadLetterQueueSourceArn"},
]
SYSTEM = (
    "SELECT grp, seq::text, sent_ms, receives, dedup, first_ms, sender, message::text, dlq FROM t"
    " ORDER BY id"
)


def expected(message: Message) -> tuple[Any, ...]:
    said = message.attributes
    return (
        said.message_group_id or "-",
        said.sequence_number and str(int(said.sequence_number)),
        said.sent_timestamp,
        said.approximate_receive_count,
        said.message_deduplication_id,
        said.approximate_first_receive_timestamp,
        "v1_" if said.sender_id else None,
        message.message_id,
        said.dead_letter_queue_source_arn,
    )


def found(database: str) -> list[tuple[Any, ...]]:
    return [(*row[:6], row[6] and row[6][:3], *row[7:]) for row in rows(database, SYSTEM)]


async def test_what_sqs_says_of_a_message_reaches_columns(
    pipeline: Assemble, database: str, sqs_client: Any, queue_url: str, fifo_url: str
) -> None:
    async with pipeline(
        name="fifo", source={"queue": fifo_url}, sink={"table": "t"}, field=SYSTEM_FIELDS
    ) as ready:
        sqs_client.send_message(
            QueueUrl=fifo_url,
            MessageBody='{"id": "a"}',
            MessageGroupId="group-7",
            MessageDeduplicationId="once",
        )
        [fifo] = await receive(ready, 1)
        await ready.processors[0].process([fifo])
    assert fifo.attributes.message_group_id == "group-7"
    assert fifo.attributes.sequence_number
    assert fifo.attributes.message_deduplication_id == "once"
    assert fifo.attributes.approximate_first_receive_timestamp
    assert fifo.attributes.sender_id
    async with pipeline(sink={"table": "t"}, field=SYSTEM_FIELDS) as ready:
        sqs_client.send_message(QueueUrl=queue_url, MessageBody='{"id": "b"}')
        [standard] = await receive(ready, 1)
        await ready.processors[0].process([standard])
    assert found(database) == [expected(fifo), expected(standard)]


async def test_they_are_asked_for_only_where_a_mapping_reads_them(
    pipeline: Assemble, sqs_client: Any, queue_url: str
) -> None:
    async with pipeline() as ready:
        sqs_client.send_message(QueueUrl=queue_url, MessageBody="{}")
        [message] = await receive(ready, 1)
    assert message.attributes.sender_id is None
    assert message.attributes.approximate_first_receive_timestamp is None


async def test_an_event_of_lambda_has_them_too(pipeline: Assemble, database: str) -> None:
    given = {
        "MessageGroupId": "g",
        "SequenceNumber": 18849496460467696128,
        "MessageDeduplicationId": "d",
        "DeadLetterQueueSourceArn": "arn:aws:sqs:us-east-1:1:q",
    }
    ids = [f"00000000-0000-4000-8000-00000000000{number}" for number in range(2)]
    event = {"Records": [record(ids[0], '{"id": "a"}', **given), record(ids[1], '{"id": "b"}')]}
    messages, _ = messages_of(event)
    async with pipeline(sink={"table": "t"}, field=SYSTEM_FIELDS) as ready:
        await ready.processors[0].process(messages)
    assert found(database) == list(map(expected, messages))
    assert found(database)[0][:2] == ("g", "18849496460467696128")


async def test_a_replay_knows_what_sqs_said(
    pipeline: Assemble, settings: Callable[..., Settings], database: str
) -> None:
    system = msgspec.convert(
        {
            "SentTimestamp": "1795384388351",
            "ApproximateReceiveCount": "3",
            "MessageGroupId": "g",
            "SequenceNumber": "18849496460467696128",
            "MessageDeduplicationId": "d",
            "ApproximateFirstReceiveTimestamp": "1795384388999",
            "SenderId": "AIDA",
            "DeadLetterQueueSourceArn": "arn",
            "AWSTraceHeader": "Root=1",
        },
        SystemAttributes,
        strict=False,
    )
    attributes = {"tenant": MessageAttribute("String", "blue")}
    message = Message(
        "00000000-0000-4000-8000-000000000001", "-", '{"id": "a", "new": 1}', system, attributes
    )
    overrides = {"sink": {"table": "t"}, "field": SYSTEM_FIELDS}
    async with pipeline(unknown_fields="quarantine", **overrides) as ready:
        assert await ready.processors[0].process([message]) == [Outcome.QUARANTINED]
    assert await replay_selected(settings(**overrides), Selection()) == Replayed(replayed=1)
    assert found(database) == [expected(message)]


async def test_a_value_that_is_required_is_a_fault_where_it_is_missing(
    pipeline: Assemble, database: str
) -> None:
    fields = [
        {"source": "sqs:MessageGroupId", "column": "grp", "required": True},
        {"source": "attribute:tenant", "column": "tenant", "required": True},
        {"source": "attribute:about", "column": "about", "type": "jsonb"},
        {"source": "attribute:tags", "column": "tags", "type": "text[]"},
    ]
    bodies = [
        (None, {}, "missing_field sqs:MessageGroupId"),
        ("g", {}, "missing_field attribute:tenant"),
        ("g", {"tenant": ""}, "empty_field attribute:tenant"),
        ("g", {"tenant": "x", "about": "{"}, "not_json attribute:about"),
        ("g", {"tenant": "x", "tags": "a"}, "wrong_type attribute:tags"),
        ("g", {"tenant": "x", "about": '{"a": 1}', "tags": '["a", null]'}, ""),
    ]
    messages = [
        Message(
            f"00000000-0000-4000-8000-00000000000{number}",
            "-",
            json.dumps({"attribute:tenant": "of the body"}),
            SystemAttributes(1_795_384_388_351 + number, 1, group),
            {name: MessageAttribute("String", text) for name, text in said.items()},
        )
        for number, (group, said, _) in enumerate(bodies)
    ]
    async with pipeline(sink={"table": "t"}, field=fields) as ready:
        await ready.processors[0].process(messages)
    reasons = rows(
        database, "SELECT reason || ' ' || detail FROM sqs2pg.quarantine ORDER BY message_id"
    )
    assert [reason for (reason,) in reasons] == [reason for *_, reason in bodies][:-1]
    assert rows(database, "SELECT grp, tenant, about::text, tags FROM t") == [
        ("g", "x", '{"a": 1}', ["a", None])
    ]
