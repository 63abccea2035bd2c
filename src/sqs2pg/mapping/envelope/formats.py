"""Formats: the JSON envelopes that AWS documents, recognised by their signatures.

- SNS notification: Amazon SNS developer guide, "Parsing Amazon SNS message formats".
- EventBridge event: Amazon EventBridge user guide, "Event structure reference".
- S3 pointer: Amazon SQS developer guide, "Managing large messages using the extended client
  library" (payload offloading for Java and Python).
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from sqs2pg.errors import PermanentFault
from sqs2pg.mapping.decode import without_mark

_SNS = frozenset({"Type", "MessageId", "TopicArn", "Message", "Timestamp"})
_SNS_MAY = _SNS | {
    *("Subject", "SignatureVersion", "Signature", "SigningCertURL", "UnsubscribeURL"),
    *("SigningCertUrl", "UnsubscribeUrl", "MessageAttributes", "SequenceNumber"),
    *("Token", "SubscribeURL"),
}
_SNS_TYPES = ("Notification", "SubscriptionConfirmation", "UnsubscribeConfirmation")
_EVENT = frozenset(
    {"version", "id", "detail-type", "source", "account", "time", "region", "detail"}
)
_EVENT_MAY = _EVENT | {"resources", "replay-name"}
_POINTERS = (
    "software.amazon.payloadoffloading.PayloadS3Pointer",
    "com.amazon.sqs.javamessaging.MessageS3Pointer",
)
# "Bucket naming rules" in the Amazon S3 user guide. An ARN is none: it may lead elsewhere.
_BUCKET = re.compile(r"[A-Za-z0-9._-]{1,255}")
_decode = msgspec.json.Decoder().decode
# Raw: the message inside is passed on byte for byte as the event has it.
_event = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class Pointer(msgspec.Struct, frozen=True):
    """The S3 object that has a message's body."""

    bucket: str
    key: str


Parts = tuple[str | bytes, dict[str, str], dict[str, str]]
"""The content, what the envelope says about it, and the content's own message attributes."""


def signature(payload: str | bytes) -> str | None:
    """Return the envelope that a payload is; None where it is no envelope.

    Raises PermanentFault `ambiguous_envelope` where it only half looks like one: it has the marks
    of an envelope and other names besides, or lacks some.
    """
    if not may_point(payload) and not _may_wrap(payload):
        return None
    value = _value(payload)
    if type(value) is list:
        return "s3" if _pointer(value) else None
    if type(value) is not dict:
        return None
    names = value.keys()
    if (value.get("Type") in _SNS_TYPES and "TopicArn" in names) or _nearly(names, _SNS):
        return _whole("sns", names, _SNS, _SNS_MAY)
    if ("detail-type" in names and "detail" in names) or _nearly(names, _EVENT):
        return _whole("eventbridge", names, _EVENT, _EVENT_MAY)
    return None


def _nearly(names: Any, must: frozenset[str]) -> bool:
    return len(must & names) >= len(must) - 1


def _whole(layer: str, names: Any, must: frozenset[str], may: frozenset[str]) -> str:
    if must <= names <= may:
        return layer
    raise PermanentFault("ambiguous_envelope", layer)


def may_point(payload: str | bytes) -> bool:
    """Whether a payload can hold a pointer at all: a quick test before it is decoded."""
    return ("s3BucketName" if isinstance(payload, str) else b"s3BucketName") in payload  # type: ignore[operator]


def _may_wrap(payload: str | bytes) -> bool:
    # A name that only an envelope has, or one that every nearly complete envelope has.
    marks = ('"TopicArn"', '"MessageId"', '"detail')
    text: Any = payload
    return any((m if isinstance(payload, str) else m.encode()) in text for m in marks)


def sns(payload: str | bytes) -> Parts:
    """Return the message of an SNS notification.

    Raises PermanentFault `not_sns`, or `sns_confirmation` for a request to confirm a subscription.
    """
    value = _value(payload)
    if type(value) is not dict or not value.keys() >= _SNS:
        raise PermanentFault("not_sns")
    if value["Type"] in _SNS_TYPES[1:]:
        raise PermanentFault("sns_confirmation")
    message = value["Message"]
    if value["Type"] != "Notification" or type(message) is not str:
        raise PermanentFault("not_sns")
    about = {
        f"sns.{name}": text
        for name in ("MessageId", "TopicArn", "Timestamp", "Subject")
        if type(text := value.get(name)) is str
    }
    given = value.get("MessageAttributes") or {}
    # A binary one is base64, as in a message of SQS.
    inner = (
        {
            name: one["Value"]
            for name, one in given.items()
            if type(one) is dict and type(one.get("Value")) is str
        }
        if type(given) is dict
        else {}
    )
    return message, about, inner


def eventbridge(payload: str | bytes) -> Parts:
    """Return the detail of an EventBridge event. Raises PermanentFault `not_eventbridge`."""
    value = _value(payload)
    if type(value) is not dict or not value.keys() >= _EVENT:
        raise PermanentFault("not_eventbridge")
    about = {
        f"eventbridge.{name}": text
        for name in ("id", "detail-type", "source", "account", "time", "region")
        if type(text := value[name]) is str
    }
    try:
        detail = bytes(_event(without_mark(payload))["detail"])
    except (msgspec.DecodeError, UnicodeError):
        detail = b""
    if not detail:
        raise PermanentFault("not_eventbridge")
    return detail, about, {}


def pointer(payload: str | bytes) -> Pointer | None:
    """Return the pointer that a payload is; None for anything else.

    The extended clients send small messages without a pointer.
    """
    return _pointer(_value(payload)) if may_point(payload) else None


def may_be_bucket(name: str) -> bool:
    """Whether S3 can have a bucket of this name: today's rules, and those before 2018."""
    return _BUCKET.fullmatch(name) is not None


def _pointer(value: Any) -> Pointer | None:
    if type(value) is not list or len(value) != 2 or value[0] not in _POINTERS:
        return None
    target = value[1]
    if type(target) is not dict:
        return None
    bucket, key = target.get("s3BucketName"), target.get("s3Key")
    if type(bucket) is not str or type(key) is not str or not bucket or not key:
        return None
    return Pointer(bucket, key)


def _value(payload: str | bytes) -> Any:
    try:
        return _decode(without_mark(payload))
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
