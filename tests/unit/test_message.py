"""Messages, records and outcomes; and that none of them, nor a fault, shows its content."""

from __future__ import annotations

import json
import pprint
from typing import Any

import msgspec
import pytest
from rich.pretty import pretty_repr

from sqs2pg import errors
from sqs2pg.errors import (
    FatalFault,
    KeyFault,
    PermanentFault,
    SettingsError,
    Sqs2pgError,
    Stage,
    TransientFault,
)
from sqs2pg.message import Message, MessageAttribute, Outcome, Record, SystemAttributes

CANARY = "canary-4711"
MESSAGE_ID = "5fea7756-0ea4-451a-a703-a558b933e274"

# Shaped after the ReceiveMessage examples of the AWS SQS API reference.
RECEIVED = {
    "MessageId": MESSAGE_ID,
    "ReceiptHandle": f"AQEB{CANARY}",
    "MD5OfBody": "fafb00f5732ab283681e124bf8747ed1",
    "Body": f'{{"user_id": "{CANARY}"}}',
    "Attributes": {
        "SenderId": "AIDASSYFHUBOBT7F4XT75",
        "ApproximateFirstReceiveTimestamp": "1677112433437",
        "ApproximateReceiveCount": "3",
        "SentTimestamp": "1677112427387",
        "MessageGroupId": "group",
        "SequenceNumber": "18849496460467696128",
        "AWSTraceHeader": "Root=1-5759e988-bd862e3fe1be46a994272793",
    },
    "MD5OfMessageAttributes": "9424c491-26bc4ae7",
    "MessageAttributes": {
        "trace": {"DataType": "String", "StringValue": CANARY},
        "blob": {"DataType": "Binary", "BinaryValue": CANARY},
    },
}


def received(**changes: Any) -> Message:
    body = json.dumps({**RECEIVED, **changes}).encode()
    return msgspec.json.decode(body, type=Message, strict=False)


class Mapped(Record):
    f0: str
    f1: str | None = None


HIDDEN = {
    "message": received(),
    "attribute": MessageAttribute("String", CANARY, CANARY),
    "record": Mapped(CANARY, CANARY),
}


def test_a_message_as_sqs_sends_it() -> None:
    message = received()
    assert message.message_id == MESSAGE_ID
    assert message.receipt_handle == f"AQEB{CANARY}"
    assert message.body == f'{{"user_id": "{CANARY}"}}'
    assert message.attributes == SystemAttributes(
        sent_timestamp=1_677_112_427_387,
        approximate_receive_count=3,
        message_group_id="group",
        sequence_number="18849496460467696128",
        aws_trace_header="Root=1-5759e988-bd862e3fe1be46a994272793",
        approximate_first_receive_timestamp=1_677_112_433_437,
        sender_id="AIDASSYFHUBOBT7F4XT75",
    )
    assert message.sequence == 18_849_496_460_467_696_128
    assert message.message_attributes is not None
    assert message.message_attributes["trace"].string_value == CANARY


def test_a_message_with_only_the_required_attributes_is_read() -> None:
    least = {
        "MessageId": "m",
        "ReceiptHandle": "r",
        "Body": "",
        "Attributes": {"SentTimestamp": "1"},
    }
    message = msgspec.json.decode(json.dumps(least).encode(), type=Message, strict=False)
    assert message.attributes == SystemAttributes(1, 1, None, None, None)
    assert message.message_attributes is None
    assert message.body == ""
    assert message.sequence == 0


def test_sequence_numbers_of_any_length_compare_as_numbers() -> None:
    numbers = ["9", "10", "18849496460467696128", "18849496460467696129", "9" * 38]
    found = [received(Attributes={"SentTimestamp": "1", "SequenceNumber": n}) for n in numbers]
    assert [message.sequence for message in found] == sorted(map(int, numbers))


def test_a_message_needs_a_sent_timestamp() -> None:
    with pytest.raises(msgspec.ValidationError):
        received(Attributes={"ApproximateReceiveCount": "1"})


def test_a_later_delivery_brings_a_newer_handle() -> None:
    message = received()
    message.receipt_handle = "newer"
    assert message.receipt_handle == "newer"


@pytest.mark.parametrize("value", HIDDEN.values(), ids=HIDDEN)
def test_no_way_of_printing_shows_content(value: Any) -> None:
    nested = {"a": [value, (value,)]}
    shown = [str(value), repr(value), f"{value}", f"{value!r}", "%s %r" % (value, value)]  # noqa: UP031
    shown += [str(nested), pprint.pformat(nested), pretty_repr(value), pretty_repr(nested)]
    assert not [text for text in shown if "4711" in text or "canary" in text]


def test_what_is_shown_names_the_message_and_the_type() -> None:
    assert repr(HIDDEN["message"]) == f"Message({MESSAGE_ID})"
    assert pretty_repr(HIDDEN["message"]) == f"Message({MESSAGE_ID!r})"
    assert repr(HIDDEN["attribute"]) == "MessageAttribute(String)"
    assert repr(HIDDEN["record"]) == "Record(…)"


def test_every_outcome_but_released_is_settled() -> None:
    settled = {outcome for outcome in Outcome if outcome.settled}
    assert settled == {Outcome.WRITTEN, Outcome.DUPLICATE, Outcome.QUARANTINED}
    assert set(Outcome) - settled == {Outcome.RELEASED}


def test_the_fault_tree_is_small_and_has_one_root() -> None:
    classes = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, Exception)]
    assert len(classes) <= 10
    assert all(issubclass(c, Sqs2pgError) for c in classes)
    assert all(c.__mro__[1] is Sqs2pgError for c in classes if c is not Sqs2pgError)


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (SettingsError("what", hint="hint"), 2),
        (KeyFault("what", code="key_missing", hint="hint"), 2),
        (FatalFault("what", code="access_denied", hint="hint"), 1),
        (TransientFault("what", code="postgres_57P01", hint="hint"), 1),
    ],
)
def test_a_fault_carries_code_words_and_exit_code(error: Sqs2pgError, exit_code: int) -> None:
    assert (str(error), error.what, error.hint, error.exit_code) == (
        "what",
        "what",
        "hint",
        exit_code,
    )
    assert error.code


def test_faults_of_messages_know_their_stage() -> None:
    assert PermanentFault("bad_ip", "ip").stage is Stage.DECODE
    assert PermanentFault("bad_ip", "ip", stage=Stage.MASK).stage is Stage.MASK
    assert TransientFault("what", code="c").stage is Stage.WRITE
    assert (str(PermanentFault("bad_ip", "ip")), str(PermanentFault("not_json"))) == (
        "bad_ip ip",
        "not_json",
    )
