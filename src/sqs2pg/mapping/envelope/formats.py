"""Formats: the JSON envelopes that AWS documents, recognised by their signatures.

- SNS notification: Amazon SNS developer guide, "Parsing Amazon SNS message formats".
- EventBridge event: Amazon EventBridge user guide, "Event structure reference".
- S3 pointer: Amazon SQS developer guide, "Managing large messages using the extended client
  library" (payload offloading for Java and Python).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from sqs2pg.errors import PermanentFault
from sqs2pg.mapping.json_slices import UNREADABLE, raw_text, too_deep, without_mark

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
# Raw: only what is looked at is decoded, and the message inside is passed on byte for byte.
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_string = msgspec.json.Decoder(str).decode
_decode = msgspec.json.Decoder().decode
Members = Mapping[str, msgspec.Raw]


class Pointer(msgspec.Struct, frozen=True):
    """The S3 object that has a message's body."""

    bucket: str
    key: str


Parts = tuple[str | bytes, dict[str, str], dict[str, str]]
"""The content, what the envelope says about it, and the content's own message attributes."""


def signature(payload: str | bytes) -> str | None:
    """Return the envelope that a payload is; None where it is no envelope.

    Raises PermanentFault `ambiguous_envelope` where it only half looks like one: it has the marks
    of an envelope and other names besides, or lacks some; `too_deep`.
    """
    if not may_point(payload) and not _may_wrap(payload):
        return None
    members = _members_of(payload)
    if members is None:
        return "s3" if pointer(payload) else None
    names = members.keys()
    if (_text(members, "Type") in _SNS_TYPES and "TopicArn" in names) or _nearly(names, _SNS):
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

    Raises PermanentFault `not_sns`, `too_deep`, or `sns_confirmation` for a request to confirm a
    subscription.
    """
    members = _members_of(payload)
    if members is None or not members.keys() >= _SNS:
        raise PermanentFault("not_sns")
    type_ = _text(members, "Type")
    if type_ in _SNS_TYPES[1:]:
        raise PermanentFault("sns_confirmation")
    message = _text(members, "Message")
    if type_ != "Notification" or message is None:
        raise PermanentFault("not_sns")
    about = _said("sns", members, ("MessageId", "TopicArn", "Timestamp", "Subject"))
    given = _value(members.get("MessageAttributes"))
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
    """Return the detail of an EventBridge event.

    Raises PermanentFault `not_eventbridge` or `too_deep`.
    """
    members = _members_of(payload)
    if members is None or not members.keys() >= _EVENT:
        raise PermanentFault("not_eventbridge")
    names = ("id", "detail-type", "source", "account", "time", "region")
    return bytes(members["detail"]), _said("eventbridge", members, names), {}


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


def _members_of(payload: str | bytes) -> Members | None:
    """Return the members of an object; None for anything else. Raises PermanentFault `too_deep`."""
    if too_deep(payload):
        raise PermanentFault("too_deep")
    try:
        return _members(without_mark(payload if isinstance(payload, str) else payload.decode()))
    except UNREADABLE:
        return None


def _text(members: Members, name: str) -> str | None:
    """Return a member that is a string."""
    raw = members.get(name)
    return _string(raw) if raw is not None and raw_text(raw).startswith('"') else None


def _said(layer: str, members: Members, names: Sequence[str]) -> dict[str, str]:
    texts = {name: _text(members, name) for name in names}
    return {f"{layer}.{name}": text for name, text in texts.items() if text is not None}


def _value(payload: str | bytes | msgspec.Raw | None) -> Any:
    try:
        if isinstance(payload, str | bytes):
            payload = without_mark(payload)
        return None if payload is None else _decode(payload)
    except UNREADABLE:
        return None
