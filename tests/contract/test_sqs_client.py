"""Our SQS client and botocore side by side, on the same servers: every answer is the same."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.queue_server import QueueServer
from sqs2pg.errors import FatalFault, SettingsError, TransientFault
from sqs2pg.message import Message, SystemAttributes
from sqs2pg.sqs.client import SqsClient
from sqs2pg.sqs.environment import read_environment
from sqs2pg.sqs.retries import Retries
from sqs2pg.sqs.wire import EntryFailure, OutgoingMessage
from tests.hypothesis_profiles import scaled

BODIES = [
    "plain",
    '{"user_id": "424cdd21", "locale": null, "n": 1.5e3}',
    'quotes " and \\ backslashes \\" and / slashes',
    "tab\tnewline\nreturn\r\n",
    "é ß 漢字 \u2028\u2029\ufffd\ue000 🙂 \U0010fffd",
    "\\u0041 is not an A",
    "null",
    "0",
    "</script><!-- & &amp; ",
    "x" * 262_144,
]
# What SQS takes in a body, by its documentation: these ranges of XML 1.0.
sqs_text = st.text(
    st.one_of(
        st.sampled_from("\t\n\r"),
        st.characters(min_codepoint=0x20, max_codepoint=0xD7FF),
        st.characters(min_codepoint=0xE000, max_codepoint=0xFFFD),
        st.characters(min_codepoint=0x10000, max_codepoint=0x10FFFF),
    ),
    min_size=1,
)


@pytest.fixture
def make(aws_environment: dict[str, str], sqs: Any) -> Callable[..., SqsClient]:
    def make(**options: Any) -> SqsClient:
        return SqsClient.from_environment(endpoint_url=sqs.endpoint_url, **options)

    return make


@pytest.fixture
async def ours(make: Callable[..., SqsClient]) -> AsyncIterator[SqsClient]:
    async with make() as client:
        yield client


def same(ours: Message, theirs: dict[str, Any]) -> None:
    """Every field that does not change from one delivery to the next."""
    assert ours.message_id == theirs["MessageId"]
    assert ours.body == theirs["Body"]
    assert hashlib.md5(ours.body.encode()).hexdigest() == theirs["MD5OfBody"]
    attributes = theirs["Attributes"]
    assert ours.attributes.sent_timestamp == int(attributes["SentTimestamp"])
    assert ours.attributes.message_group_id == attributes.get("MessageGroupId")
    assert ours.attributes.sequence_number == attributes.get("SequenceNumber")
    assert ours.attributes.aws_trace_header == attributes.get("AWSTraceHeader")
    theirs_set = {
        name: (value["DataType"], value.get("StringValue"))
        for name, value in theirs.get("MessageAttributes", {}).items()
    }
    ours_set = {
        name: (value.data_type, value.string_value)
        for name, value in (ours.message_attributes or {}).items()
    }
    assert ours_set == theirs_set


async def receive_both(
    client: SqsClient, sqs: Any, url: str, count: int
) -> list[tuple[Message, dict[str, Any]]]:
    """The queue's `count` messages as each client receives them, hidden from neither."""
    ours: dict[str, Message] = {}
    theirs: dict[str, dict[str, Any]] = {}
    while len(ours) < count:
        for message in await client.receive(
            url, wait_s=0, visibility_timeout_s=0, message_attributes=["All"]
        ):
            ours[message.message_id] = message
    while len(theirs) < count:
        for found in sqs.receive(url, VisibilityTimeout=0, MessageAttributeNames=["All"]):
            theirs[found["MessageId"]] = found
    assert ours.keys() == theirs.keys()
    return [(ours[key], theirs[key]) for key in ours]


async def test_receive_gives_the_messages_that_boto3_gives(sqs: Any, ours: SqsClient) -> None:
    url = sqs.queue()
    for body in BODIES:
        sqs.send(
            url,
            body,
            MessageAttributes={
                "kind": {"DataType": "String", "StringValue": "login é"},
                "n": {"DataType": "Number", "StringValue": "17"},
            },
            MessageSystemAttributes={
                "AWSTraceHeader": {"DataType": "String", "StringValue": "Root=1-5-a;Sampled=1"}
            },
        )
    pairs = await receive_both(ours, sqs, url, len(BODIES))
    for mine, theirs in pairs:
        same(mine, theirs)
    assert sorted(mine.body for mine, _ in pairs) == sorted(BODIES)


async def test_send_and_receive_the_largest(sqs: Any, ours: SqsClient) -> None:
    url = sqs.queue()
    for body in ("\\" * 1_048_576, "é" * 524_288, "\n" * 1_048_576):
        result = await ours.send_for_ids(url, [body])
        assert result.failures == []
        [[mine, theirs]] = await receive_both(ours, sqs, url, 1)
        same(mine, theirs)
        assert (mine.message_id, mine.body) == (result.message_ids[0], body)
        [message] = await ours.receive(url, wait_s=0)
        assert await ours.delete(url, [message.receipt_handle]) == []


async def test_any_text_survives(sqs: Any, aws_environment: dict[str, str]) -> None:
    url = sqs.queue()
    environment = read_environment(endpoint_url=sqs.endpoint_url)

    @settings(
        max_examples=scaled(12, 200),
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(st.lists(sqs_text, min_size=1, max_size=10))
    def check(bodies: list[str]) -> None:
        async def there_and_back() -> None:
            async with SqsClient(environment) as client:
                sent = await client.send_for_ids(url, bodies)
                assert sent.failures == []
                found: dict[str, Message] = {}
                while len(found) < len(bodies):
                    for message in await client.receive(url, wait_s=1):
                        found[message.message_id] = message
                assert [found[id_ or ""].body for id_ in sent.message_ids] == bodies
                handles = [message.receipt_handle for message in found.values()]
                assert await client.delete(url, handles) == []

        asyncio.run(there_and_back())

    await asyncio.to_thread(check)


async def test_send_puts_texts_and_attributes_on_the_queue(sqs: Any, ours: SqsClient) -> None:
    url = sqs.queue()
    full = OutgoingMessage("full", attributes={"kind": "login", "note": "é"})
    result = await ours.send_for_ids(url, ["text", full])
    assert result.failures == []
    found = {found["Body"]: found for found in sqs.receive(url, MessageAttributeNames=["All"])}
    assert [found["text"]["MessageId"], found["full"]["MessageId"]] == result.message_ids
    values = {
        name: value["StringValue"] for name, value in found["full"]["MessageAttributes"].items()
    }
    assert values == full.attributes
    assert await ours.send(url, [OutgoingMessage("later", delay_s=900)]) == []
    assert sqs.attribute(url, "ApproximateNumberOfMessagesDelayed") == "1"


async def test_a_fifo_send_is_deduplicated(sqs: Any, ours: SqsClient) -> None:
    url = sqs.queue(fifo=True)
    entries = [OutgoingMessage(f"b{n}", group_id="g-007", deduplication_id=f"d{n}") for n in "123"]
    first = await ours.send_for_ids(url, entries)
    again = await ours.send_for_ids(url, entries)
    assert first.failures == again.failures == []
    assert again.message_ids == first.message_ids  # taken for the same by their ids
    received = await ours.receive(url, wait_s=1)
    assert [message.body for message in received] == ["b1", "b2", "b3"]
    assert [message.message_id for message in received] == first.message_ids
    assert {message.attributes.message_group_id for message in received} == {"g-007"}
    numbers = [int(message.attributes.sequence_number or 0) for message in received]
    assert numbers == sorted(set(numbers))
    assert await ours.change_visibility(url, [m.receipt_handle for m in received], 0) == []
    theirs = sqs.receive(url, wait=1)
    for mine, their in zip(received, theirs, strict=True):
        same(mine, their)


async def test_a_batch_fails_in_part_alike(sqs: Any, ours: SqsClient) -> None:
    url = sqs.queue()
    bodies = ["good", "bad \x01", "good too", "bad \uffff"]
    result = await ours.send_for_ids(url, bodies)
    answer = sqs.client.send_message_batch(
        QueueUrl=url,
        Entries=[{"Id": str(n), "MessageBody": body} for n, body in enumerate(bodies)],
    )
    assert result.failures == failures_of(answer)
    assert [failure.index for failure in result.failures] == [1, 3]
    assert [id_ is None for id_ in result.message_ids] == [False, True, False, True]


def failures_of(answer: dict[str, Any]) -> list[EntryFailure]:
    """What botocore says failed, in the order and words of our client."""
    return [
        EntryFailure(int(entry["Id"]), entry["Code"], entry["SenderFault"])
        for entry in sorted(answer.get("Failed", []), key=lambda entry: int(entry["Id"]))
    ]


async def test_delete_gives_the_answers_that_boto3_gives(sqs: Any, ours: SqsClient) -> None:
    url = sqs.queue()
    for number in range(10):
        sqs.send(url, f"body {number}")
    messages = await ours.receive(url, wait_s=0)
    assert len(messages) == 10
    handles = [message.receipt_handle for message in messages]
    assert await ours.delete(url, handles) == []
    entries = [{"Id": str(n), "ReceiptHandle": handle} for n, handle in enumerate(handles)]
    again = sqs.client.delete_message_batch(QueueUrl=url, Entries=entries)
    assert await ours.delete(url, handles) == failures_of(again)
    # AWS takes a handle deleted before; ministack does not know it any more.
    assert len(failures_of(again)) == (10 if sqs.is_ministack else 0)
    for name in ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"):
        assert sqs.attribute(url, name) == "0"


async def test_entries_fail_alike(sqs: Any, ours: SqsClient) -> None:
    url = sqs.queue()
    sqs.send(url, "one")
    sqs.send(url, "two")
    found = [message.receipt_handle for message in await ours.receive(url, wait_s=0)]
    assert len(found) == 2
    handles = ["bogus", found[0], 'quo"ted\\', found[1]]
    entries = [{"Id": str(n), "ReceiptHandle": handle} for n, handle in enumerate(handles)]

    changed = await ours.change_visibility(url, handles, 60)
    timed = [entry | {"VisibilityTimeout": 60} for entry in entries]
    answer = sqs.client.change_message_visibility_batch(QueueUrl=url, Entries=timed)
    assert changed == failures_of(answer)
    assert [failure.index for failure in changed] == [0, 2]

    deleted = await ours.delete(url, handles)
    assert [failure.index for failure in deleted] == [0, 2]
    answer = sqs.client.delete_message_batch(QueueUrl=url, Entries=[entries[0], entries[2]])
    assert deleted == failures_of(answer)
    assert all(failure.sender_fault for failure in changed + deleted)


async def test_change_visibility_zero_makes_a_message_visible_again(
    sqs: Any, ours: SqsClient
) -> None:
    url = sqs.queue(VisibilityTimeout="600")
    sqs.send(url, "body")
    [first] = await ours.receive(url, wait_s=0)
    assert await ours.receive(url, wait_s=0) == []
    assert await ours.change_visibility(url, [first.receipt_handle], 0) == []
    [second] = await ours.receive(url, wait_s=1)
    assert second.message_id == first.message_id
    assert second.receipt_handle != first.receipt_handle
    assert (first.attributes.approximate_receive_count,
            second.attributes.approximate_receive_count) == (1, 2)  # fmt: skip
    assert second.attributes.sent_timestamp == first.attributes.sent_timestamp


async def under_way(client: SqsClient) -> None:
    """Return once a poll has dialled."""
    while not client.polls.connections:
        await asyncio.sleep(0)


async def test_a_poll_waits_for_a_message(sqs: Any, ours: SqsClient) -> None:
    url = sqs.queue()
    poll = asyncio.create_task(ours.receive(url, wait_s=20))
    began = time.monotonic()
    await under_way(ours)
    assert await ours.send(url, ["wake"]) == []
    [message] = await poll
    assert message.body == "wake"
    assert time.monotonic() - began < 18


async def test_a_cancelled_poll_leaves_the_client_sound(sqs: Any, ours: SqsClient) -> None:
    urls = [sqs.queue(), sqs.queue()]
    for _ in range(10):
        poll = asyncio.create_task(ours.receive(urls[0], wait_s=20))
        await under_way(ours)
        poll.cancel()
        with pytest.raises(asyncio.CancelledError):
            await poll
        assert await ours.receive(urls[1], wait_s=0) == []
    assert await ours.send(urls[1], ["body"]) == []
    [message] = await ours.receive(urls[1], wait_s=1)
    assert message.body == "body"


async def test_attributes_equal_those_that_boto3_reads(sqs: Any, ours: SqsClient) -> None:
    url = sqs.queue(VisibilityTimeout="77")
    sqs.send(url, "body")
    theirs = sqs.client.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    assert await ours.attributes(url) == theirs
    assert await ours.attributes(url, ["VisibilityTimeout"]) == {"VisibilityTimeout": "77"}


async def test_queue_url_finds_a_queue_by_name_or_arn(sqs: Any, ours: SqsClient) -> None:
    url = sqs.queue()
    name = url.rpartition("/")[2]
    theirs = sqs.client.get_queue_url(QueueName=name)["QueueUrl"]
    assert await ours.queue_url(name) == theirs
    assert await ours.queue_url(sqs.arn(url)) == theirs
    assert await ours.queue_url(url) == url
    with pytest.raises(SettingsError):
        await ours.queue_url(f"arn:aws:sqs:mars-north-1:000000000000:{name}")


async def test_create_queue_may_be_repeated(sqs: Any, ours: SqsClient) -> None:
    name = f"made-{secrets.token_hex(8)}"
    url = await ours.create_queue(name, {"VisibilityTimeout": "42"})
    sqs.urls.append(url)
    assert url == await ours.create_queue(name, {"VisibilityTimeout": "42"})
    assert url == sqs.client.get_queue_url(QueueName=name)["QueueUrl"]
    assert sqs.attribute(url, "VisibilityTimeout") == "42"


async def test_a_missing_queue(sqs: Any, ours: SqsClient) -> None:
    url = sqs.queue()
    missing = url + "-missing"
    with pytest.raises(ClientError) as theirs:
        sqs.client.receive_message(QueueUrl=missing)
    assert theirs.value.response["Error"]["QueryErrorCode"] == "QueueDoesNotExist"
    for call in (
        ours.receive(missing, wait_s=0),
        ours.delete(missing, ["h"]),
        ours.change_visibility(missing, ["h"], 1),
        ours.send(missing, ["b"]),
        ours.attributes(missing),
        ours.queue_url("missing"),
    ):
        with pytest.raises(FatalFault) as caught:
            await call
        assert caught.value.code == "aws_queue_missing"
        assert "QueueDoesNotExist" in caught.value.what


async def test_many_tasks_send_and_receive_over_few_connections(
    sqs: Any, make: Callable[..., SqsClient]
) -> None:
    url = sqs.queue()
    async with make(max_connections=8) as client:
        bodies = [f"body {number}" for number in range(200)]
        batches = [bodies[at : at + 10] for at in range(0, len(bodies), 10)]
        answers = await asyncio.gather(*(client.send_for_ids(url, batch) for batch in batches))
        sent = dict(zip((i for a in answers for i in a.message_ids), bodies, strict=True))
        received: dict[str | None, str] = {}

        async def consume() -> None:
            while len(received) < len(sent):
                messages = await client.receive(url, wait_s=0)
                received.update({message.message_id: message.body for message in messages})
                if messages:
                    handles = [message.receipt_handle for message in messages]
                    assert await client.delete(url, handles) == []

        await asyncio.gather(*(consume() for _ in range(16)))
        assert received == sent
        assert client.polls.size <= 8


# The benchmarks' queue server can misbehave when asked to.


@pytest.fixture
async def faulty(
    queue_server: QueueServer, aws_environment: dict[str, str]
) -> AsyncIterator[tuple[QueueServer, SqsClient, str]]:
    environment = read_environment(endpoint_url=queue_server.endpoint_url)
    retries = Retries(environment.retries, draw=lambda: 0.0)
    async with SqsClient(environment, silence_s=5, retries=retries) as client:
        url = await client.create_queue(f"faulty-{secrets.token_hex(8)}")
        yield queue_server, client, url
        queue_server.set_faults(reset=True)


@pytest.mark.parametrize("fault", ["throttle_share", "error_share", "lose_reply_share"])
async def test_faults_that_pass_are_retried(
    faulty: tuple[QueueServer, SqsClient, str], fault: str
) -> None:
    server, client, url = faulty
    assert await client.send(url, ["body"]) == []
    for call in ("ReceiveMessage", "DeleteMessageBatch", "ChangeMessageVisibilityBatch"):
        server.set_faults(call, **{fault: 1.0, "times": 1})
    messages: list[Message] = []
    while not messages:  # a lost reply takes its message with it until the timeout
        messages = await client.receive(url, wait_s=1, visibility_timeout_s=3)
    handles = [message.receipt_handle for message in messages]
    assert await client.change_visibility(url, handles, 30) == []
    assert await client.delete(url, handles) == []


async def test_faults_that_last_are_reported(faulty: tuple[QueueServer, SqsClient, str]) -> None:
    server, client, url = faulty
    for fault, code in (
        ("throttle_share", "aws_throttled"),
        ("error_share", "aws_5xx"),
        ("lose_reply_share", "aws_connection"),
    ):
        server.set_faults("DeleteMessageBatch", **{fault: 1.0})
        with pytest.raises(TransientFault) as caught:
            await client.delete(url, ["handle"])
        assert caught.value.code == code
        server.set_faults(reset=True)


def test_messages_hide_their_bodies() -> None:
    message = Message("m", "h", "secret", SystemAttributes(1))
    assert "secret" not in repr(message)
