"""What a consumer relies on in a FIFO queue: order and locking of groups, no duplicates.

Checked on each local server, as in test_queue_servers.py. "AWS was seen" marks behaviour that
its documentation leaves open and that others recorded against the service itself.
"""

from __future__ import annotations

import hashlib
import json
import time
from typing import Any

import pytest
from botocore.exceptions import ClientError


def code(caught: pytest.ExceptionInfo[ClientError]) -> str:
    text: str = caught.value.response["Error"]["Code"]
    return text


def send(sqs: Any, url: str, *labels: str) -> list[Any]:
    """Send one message per label; its group is the label's first letter."""
    return [
        sqs.send(url, label, MessageGroupId=label[0], MessageDeduplicationId=label)
        for label in labels
    ]


def bodies(messages: list[Any]) -> list[str]:
    return [message["Body"] for message in messages]


def test_a_group_comes_in_order_and_its_sequence_numbers_rise(sqs: Any) -> None:
    url = sqs.queue(fifo=True)
    sent = send(sqs, url, "a1", "a2", "a3")
    entries = [
        {"Id": label, "MessageBody": label, "MessageGroupId": "a", "MessageDeduplicationId": label}
        for label in ("a4", "a5")
    ]
    sent += sqs.client.send_message_batch(QueueUrl=url, Entries=entries)["Successful"]
    held = sqs.receive(url)
    assert bodies(held) == ["a1", "a2", "a3", "a4", "a5"]
    numbers = [message["Attributes"]["SequenceNumber"] for message in held]
    assert numbers == [answer["SequenceNumber"] for answer in sent]
    assert all(len(number) == 20 and number.isdigit() for number in numbers)
    assert numbers == sorted(set(numbers))
    for message in held:
        assert message["Attributes"]["MessageGroupId"] == "a"
        assert message["Attributes"]["MessageDeduplicationId"] == message["Body"]


def test_a_message_in_flight_holds_back_the_rest_of_its_group_only(sqs: Any) -> None:
    url = sqs.queue(fifo=True, VisibilityTimeout="60")
    send(sqs, url, "a1", "a2", "b1")
    first = sqs.receive_one(url)
    assert first["Body"] == "a1"
    assert bodies(sqs.receive(url)) == ["b1"]
    assert sqs.receive(url) == []
    sqs.delete(url, first)
    assert bodies(sqs.receive(url)) == ["a2"]


def test_a_released_message_comes_back_in_its_place(sqs: Any) -> None:
    url = sqs.queue(fifo=True, VisibilityTimeout="60")
    send(sqs, url, "a1", "a2", "a3")
    for message in reversed(sqs.receive(url)):
        sqs.change(url, message, 0)
    again = sqs.receive(url)
    assert bodies(again) == ["a1", "a2", "a3"]
    assert {message["Attributes"]["ApproximateReceiveCount"] for message in again} == {"2"}


def test_an_expired_message_comes_back_before_later_ones(sqs: Any) -> None:
    url = sqs.queue(fifo=True)
    send(sqs, url, "a1")
    sqs.receive_one(url, VisibilityTimeout=2)
    send(sqs, url, "a2")
    assert sqs.receive(url) == []
    assert bodies(sqs.receive(url, wait=20)) == ["a1", "a2"]


def test_messages_after_one_in_flight_wait_for_it(sqs: Any) -> None:
    url = sqs.queue(fifo=True, VisibilityTimeout="60")
    send(sqs, url, "a1", "a2", "a3")
    first, second, _ = sqs.receive(url)
    sqs.change(url, second, 0)
    assert sqs.receive(url) == []  # a1 is still held
    sqs.change(url, first, 0)
    # AWS was seen to give what precedes the first one in flight, here a1 and a2 without a3.
    # ministack locks the group as long as any of it is in flight.
    assert bodies(sqs.receive(url)) == ([] if sqs.is_ministack else ["a1", "a2"])


def test_a_duplicate_is_taken_and_dropped(sqs: Any) -> None:
    url = sqs.queue(fifo=True)
    (first,) = send(sqs, url, "a1")
    twice = sqs.send(url, "other text", MessageGroupId="b", MessageDeduplicationId="a1")
    assert twice["MessageId"] == first["MessageId"]
    assert twice["SequenceNumber"] == first["SequenceNumber"]
    assert twice["MD5OfMessageBody"] == hashlib.md5(b"other text").hexdigest()
    held = sqs.receive(url)
    assert bodies(held) == ["a1"]
    sqs.delete(url, held[0])
    send(sqs, url, "a1")  # within five minutes, even after the first is gone
    assert sqs.receive(url) == []


def test_duplicates_by_content(sqs: Any) -> None:
    url = sqs.queue(fifo=True, ContentBasedDeduplication="true")
    first = sqs.send(url, "é same", MessageGroupId="a")
    again = sqs.send(url, "é same", MessageGroupId="a")
    sqs.send(url, "other", MessageGroupId="a")
    sqs.send(url, "é same", MessageGroupId="a", MessageDeduplicationId="its-own")
    assert first["MessageId"] == again["MessageId"]
    held = sqs.receive(url)
    assert bodies(held) == ["é same", "other", "é same"]
    found = [message["Attributes"]["MessageDeduplicationId"] for message in held]
    digest = hashlib.sha256("é same".encode()).hexdigest()
    assert found == [digest, hashlib.sha256(b"other").hexdigest(), "its-own"]


def test_duplicates_within_a_group_only_when_the_scope_says_so(sqs: Any) -> None:
    url = sqs.queue(
        fifo=True, DeduplicationScope="messageGroup", FifoThroughputLimit="perMessageGroupId"
    )
    for group in ("a", "a", "b"):
        sqs.send(url, group, MessageGroupId=group, MessageDeduplicationId="same")
    assert sorted(bodies(sqs.drain(url))) == ["a", "b"]


def test_a_fifo_message_needs_its_group_and_an_id_and_no_delay_of_its_own(sqs: Any) -> None:
    url = sqs.queue(fifo=True)
    for options, error in (
        ({"MessageDeduplicationId": "d"}, "MissingParameter"),
        ({"MessageGroupId": "a"}, "InvalidParameterValue"),
        (
            {"MessageGroupId": "a", "MessageDeduplicationId": "d", "DelaySeconds": 1},
            "InvalidParameterValue",
        ),
    ):
        with pytest.raises(ClientError) as caught:
            sqs.send(url, "refused", **options)
        assert code(caught) == error
    assert sqs.receive(url) == []


def test_a_delayed_queue_keeps_the_order(sqs: Any) -> None:
    url = sqs.queue(fifo=True, DelaySeconds="2")
    started = time.monotonic()
    send(sqs, url, "a1", "a2")
    assert sqs.receive(url) == []
    seen: list[str] = []
    while len(seen) < 2:  # the second becomes visible a moment after the first
        for message in sqs.receive(url, wait=20):
            seen.append(message["Body"])
            sqs.delete(url, message)
    assert seen == ["a1", "a2"]
    assert time.monotonic() - started >= 1.95


def test_a_handle_dies_with_its_visibility_timeout(sqs: Any) -> None:
    url = sqs.queue(fifo=True)
    send(sqs, url, "a1")
    message = sqs.receive_one(url, VisibilityTimeout=0)
    if sqs.is_ministack:  # it deletes as on a standard queue
        sqs.delete(url, message)
        assert sqs.receive(url) == []
        return
    for refused in (sqs.delete, lambda queue, held: sqs.change(queue, held, 10)):
        with pytest.raises(ClientError) as caught:
            refused(url, message)
        assert code(caught) == "InvalidParameterValue"
    assert bodies(sqs.receive(url)) == ["a1"]


def test_a_poisonous_message_leaves_its_group_for_the_dead_letter_queue(sqs: Any) -> None:
    dead = sqs.queue(fifo=True)
    policy = json.dumps({"deadLetterTargetArn": sqs.arn(dead), "maxReceiveCount": 1})
    url = sqs.queue(fifo=True, RedrivePolicy=policy)
    sent = send(sqs, url, "a1", "a2")
    poison = sqs.receive_one(url, VisibilityTimeout=1)
    (healthy,) = sqs.receive(url, wait=20)
    assert healthy["Body"] == "a2"
    (moved,) = sqs.receive(dead)
    assert moved["Body"] == "a1"
    assert moved["MessageId"] == poison["MessageId"] == sent[0]["MessageId"]
    assert moved["Attributes"]["MessageGroupId"] == "a"
    assert moved["Attributes"]["DeadLetterQueueSourceArn"] == sqs.arn(url)
    before = int(poison["Attributes"]["SentTimestamp"])
    after = int(moved["Attributes"]["SentTimestamp"])
    # AWS: "For FIFO queues, the enqueue timestamp resets when the message is moved to a
    # dead-letter queue." ministack counts retention from the move but tells the first time.
    assert after == before if sqs.is_ministack else after >= before + 900


def test_a_dead_letter_queue_is_of_its_source_s_type(sqs: Any) -> None:
    standard = sqs.queue()
    policy = json.dumps({"deadLetterTargetArn": sqs.arn(standard), "maxReceiveCount": 1})
    if sqs.is_ministack:  # which takes any
        sqs.queue(fifo=True, RedrivePolicy=policy)
        return
    with pytest.raises(ClientError) as caught:
        sqs.queue(fifo=True, RedrivePolicy=policy)
    assert code(caught) == "InvalidAttributeValue"


def test_groups_take_turns_and_none_is_lost(sqs: Any) -> None:
    url = sqs.queue(fifo=True, VisibilityTimeout="60")
    labels = [f"{group}{number}" for number in range(1, 6) for group in "abcdef"]
    send(sqs, url, *labels)
    seen: dict[str, list[str]] = {}
    while messages := sqs.receive(url, most=4):
        for message in messages:
            seen.setdefault(message["Body"][0], []).append(message["Body"])
            sqs.delete(url, message)
    assert seen == {group: [f"{group}{number}" for number in range(1, 6)] for group in "abcdef"}


def test_a_fifo_queue_tells_that_it_is_one(sqs: Any) -> None:
    url = sqs.queue(fifo=True, ContentBasedDeduplication="true")
    assert sqs.attribute(url, "FifoQueue") == "true"
    assert sqs.attribute(url, "ContentBasedDeduplication") == "true"
    with pytest.raises(ClientError) as caught:
        sqs.client.create_queue(QueueName="no-suffix", Attributes={"FifoQueue": "true"})
    assert code(caught) == "InvalidParameterValue"
