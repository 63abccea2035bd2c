"""Replies with odd messages: each of the others is read as ever, and nothing ends the process."""

from __future__ import annotations

import json
from typing import Any

import pytest
from structlog.testing import capture_logs

from sqs2pg.errors import TransientFault
from sqs2pg.mapping.ledger_key import AHEAD_S
from sqs2pg.message import MessageAttribute, SystemAttributes
from sqs2pg.runners.lambda_event import messages_of
from sqs2pg.sqs import wire
from sqs2pg.sqs.odd_deliveries import bounded

SENT = "1795384388351"
LATEST = 253_402_300_799_999
GOOD = {
    "MessageId": "m-good",
    "ReceiptHandle": "h-good",
    "Body": "{}",
    "Attributes": {"SentTimestamp": SENT, "ApproximateReceiveCount": "2"},
}


def reply(**changes: Any) -> bytes:
    """A reply of a good message and one that is changed; None leaves a name out."""
    odd = {**GOOD, "MessageId": "m-odd", "ReceiptHandle": "h-odd", **changes}
    odd = {name: value for name, value in odd.items() if value is not None}
    return json.dumps({"Messages": [GOOD, odd]}).encode()


def stamped(value: Any) -> dict[str, Any]:
    return {"Attributes": {"SentTimestamp": value}}


@pytest.mark.parametrize(
    ("changes", "odd"),
    [
        *[
            (stamped(sent), "SentTimestamp")
            for sent in (str(LATEST + 1), "9" * 400, "-1", "soon", "1.5", "", None, [], 1e300)
        ],
        ({"Attributes": None}, "SentTimestamp"),
        ({"Attributes": []}, "SentTimestamp"),
        ({"Body": None}, "Body"),
        ({"Body": 7}, "Body"),
        ({"Attributes": {"SentTimestamp": SENT, "SequenceNumber": "x"}}, "SequenceNumber"),
        ({"Attributes": {"SentTimestamp": SENT, "SequenceNumber": "9" * 9000}}, "SequenceNumber"),
        (
            {"Attributes": {"SentTimestamp": SENT, "ApproximateFirstReceiveTimestamp": "soon"}},
            "ApproximateFirstReceiveTimestamp",
        ),
        ({"MessageAttributes": {"kind": {"DataType": "String"}, "b": 1}}, "MessageAttributes"),
        ({"MessageAttributes": []}, ""),
        ({"MessageAttributes": 5}, "MessageAttributes"),
    ],
)
def test_one_odd_message_is_named_and_the_other_is_as_ever(
    changes: dict[str, Any], odd: str
) -> None:
    good, other = wire.read_messages(reply(**changes))
    assert (good.message_id, good.receipt_handle, good.body, good.odd) == (
        "m-good",
        "h-good",
        "{}",
        "",
    )
    assert good.attributes == SystemAttributes(int(SENT), 2)
    assert (other.message_id, other.receipt_handle, other.odd) == ("m-odd", "h-odd", odd)
    # The ledger's key is the same at each delivery.
    assert other.attributes.sent_timestamp == (0 if odd == "SentTimestamp" else int(SENT))
    assert other.sequence == 0


def test_the_last_millisecond_of_the_year_9999_and_the_first_of_1970_are_no_oddities() -> None:
    for sent in (0, LATEST):
        _, other = wire.read_messages(reply(**stamped(str(sent))))
        assert (other.attributes.sent_timestamp, other.odd) == (sent, "")


def test_a_message_of_the_future_has_no_time() -> None:
    now_s = 1_795_384_388.0
    latest = round((now_s + AHEAD_S) * 1000)
    for sent, odd in ((latest, ""), (latest + 1, "SentTimestamp")):
        messages = wire.read_messages(reply(**stamped(str(sent))))
        good, other = bounded(messages, now_s)
        assert (good, good.odd) == (messages[0], "")
        assert other.odd == odd
        assert other.attributes.sent_timestamp == (0 if odd else sent)
        assert (other.message_id, other.receipt_handle) == ("m-odd", "h-odd")
    assert bounded([], now_s) == []


def test_an_attribute_without_a_data_type_is_its_value() -> None:
    _, other = wire.read_messages(reply(MessageAttributes={"kind": {"StringValue": "login"}}))
    assert other.odd == ""
    assert other.message_attributes == {"kind": MessageAttribute("", "login")}


@pytest.mark.parametrize(
    ("told", "count"), [("2147483647", 2**31 - 1), ("2147483648", 1), ("9" * 30, 1), ("x", 1)]
)
def test_a_receive_count_that_is_none_is_the_first(told: str, count: int) -> None:
    attributes = {"SentTimestamp": SENT, "ApproximateReceiveCount": told}
    _, other = wire.read_messages(reply(Attributes=attributes))
    assert (other.attributes.approximate_receive_count, other.odd) == (count, "")


def test_a_body_that_is_no_unicode_is_for_the_decoder_to_refuse() -> None:
    body = reply(Body="caf\u00e9").replace(b"caf\\u00e9", b"caf\xe9")
    good, other = wire.read_messages(body)
    assert (good.odd, other.odd, other.body) == ("", "", "caf\udce9")
    good, other = wire.read_messages(reply(Body="\ud800"))
    assert (good.odd, other.odd, other.body) == ("", "", "\ud800")
    # An attribute could not be sealed.
    text = {"kind": {"DataType": "String", "StringValue": "\ud800"}}
    _, other = wire.read_messages(reply(MessageAttributes=text))
    assert (other.odd, other.message_attributes) == ("MessageAttributes", None)


@pytest.mark.parametrize(
    "changes",
    [
        {"MessageId": None},
        {"MessageId": ""},
        {"MessageId": "a\nb"},
        {"MessageId": "m" * 1001, "Body": None},
        {"ReceiptHandle": None},
        {"ReceiptHandle": 1},
    ],
)
def test_what_can_be_neither_keyed_nor_deleted_stays_on_the_queue(changes: dict[str, Any]) -> None:
    changes = {"Body": None, **changes}  # so that the reply is odd at all
    with capture_logs() as logs:
        [good] = wire.read_messages(reply(**changes))
    assert good.message_id == "m-good"
    assert [(one["code"], one["messages"]) for one in logs] == [("odd_delivery", 1)]


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"nil", b'{"Messages":{}}', b'{"Messages":[{}]}', b"[" * 100_000, b"\xff"],
)
def test_what_is_no_reply_is_a_garbled_one(body: bytes) -> None:
    with pytest.raises(TransientFault) as caught:
        wire.read_messages(body)
    assert caught.value.code == "aws_garbled_reply"
    assert caught.value.__context__ is None


@pytest.mark.parametrize("body", [b"", b" \n"])
def test_an_empty_answer_has_no_attributes(body: bytes) -> None:
    assert wire.read_attributes(body) == {}


def test_counts_that_are_not_known_are_not_zero() -> None:
    assert wire.read_counts({"a": "7"}, ["a", "b"]) == [7, 0]
    for given in ({}, {"a": "many"}, {"a": "-1"}, {"a": "9" * 5000}, {"a": "\u0663"}):
        with pytest.raises(TransientFault) as caught:
            wire.read_counts(given, ["a", "b"])
        assert caught.value.code == "aws_garbled_reply"


def test_one_odd_record_of_an_event_of_lambda_leaves_the_others() -> None:
    good = {
        "messageId": "m-good",
        "receiptHandle": "h-good",
        "body": "{}",
        "attributes": {"SentTimestamp": SENT, "ApproximateReceiveCount": "2"},
        "messageAttributes": {"kind": {"dataType": "Binary", "binaryValue": "aGk="}},
        "eventSourceARN": "arn:aws:sqs:eu-central-1:000000000000:q",
    }
    odd = {**good, "messageId": "m-odd", "attributes": {"SentTimestamp": str(LATEST + 1)}}
    messages, fifo = messages_of({"Records": [good, odd]})
    assert not fifo
    assert [(one.message_id, one.odd) for one in messages] == [
        ("m-good", ""),
        ("m-odd", "SentTimestamp"),
    ]
    for one in messages:
        assert one.message_attributes == {"kind": MessageAttribute("Binary", None, "aGk=")}
