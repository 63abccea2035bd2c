"""Odd deliveries: messages that are not as the SQS API reference describes them.

Place in the flow: `wire.py` reads a usual reply in one pass. A reply in which anything is odd comes
here, and is read message by message, so that one odd message does not keep the others.

Promises: a message with a MessageId and a receipt handle is always returned. If one of its
attributes is missing or out of its bound, `Message.odd` names that attribute, and the message is
quarantined. Its stand-in for the attribute is the same at each delivery, so its ledger key is, too.
No I/O.
"""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec

from sqs2pg.mapping.ledger_key import AHEAD_S
from sqs2pg.message import (
    RECEIVES_MAX,
    SENT_MS_MAX,
    Message,
    MessageAttribute,
    SystemAttributes,
)

MESSAGE_ID_MAX = 1_000
"""Characters of a MessageId. SQS's have 36; emulators may make longer ones."""
_SURROGATE = re.compile("[\ud800-\udfff]")
_DIGITS = re.compile(r"[0-9]{1,40}", re.ASCII)


def read_reply(body: bytes) -> tuple[list[Message], int] | None:
    """Return the messages of a reply, and how many entries are none; None if it is no such reply.

    An entry without a MessageId or a receipt handle is no message: it could be neither written once
    nor deleted. It stays on the queue.
    """
    try:
        # Bodies may hold what is no UTF-8: the decoder refuses it later, for that message alone.
        reply = json.loads(body.decode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError):
        return None
    entries = reply.get("Messages") if type(reply) is dict else None
    if type(entries) is not list:
        return None
    found = [message for entry in entries if (message := read_entry(entry)) is not None]
    held = [message for message in found if message.receipt_handle]
    return held, len(entries) - len(held)


def read_entry(entry: object, *, camel: bool = False) -> Message | None:
    """Return the message of a reply's entry; None if it has no MessageId.

    `camel`: names begin in lower case, as in an event of Lambda. Then no receipt handle is needed:
    it is "" if there is none.
    """

    def get(values: dict[str, Any], name: str) -> Any:
        return values.get(name[0].lower() + name[1:] if camel else name)

    if type(entry) is not dict:
        return None
    message_id, body = get(entry, "MessageId"), get(entry, "Body")
    if not _is_id(message_id):
        return None
    odd: list[str] = []
    if type(body) is not str:
        odd.append("Body")
    given = get(entry, "Attributes")
    system = _system(given if type(given) is dict else {}, odd)
    attributes: dict[str, MessageAttribute] = {}
    given = get(entry, "MessageAttributes") or {}
    for name, one in given.items() if type(given) is dict else [("", {})]:
        value = one if type(one) is dict else {}
        text, binary = _text(get(value, "StringValue")), _text(get(value, "BinaryValue"))
        if _text(name) is not None and (text is not None or binary is not None):
            attributes[name] = MessageAttribute(_text(get(value, "DataType")) or "", text, binary)
        elif "MessageAttributes" not in odd:
            odd.append("MessageAttributes")
    return Message(
        message_id,
        _text(get(entry, "ReceiptHandle")) or "",
        body if type(body) is str else "",
        system,
        attributes or None,
        odd=odd[0] if odd else "",
    )


def bounded(messages: list[Message], now_s: float) -> list[Message]:
    """Return the messages, those that were sent in the future as odd ones.

    `now_s` is the clock, corrected by the server's, seconds since the epoch.
    """
    latest_ms = (now_s + AHEAD_S) * 1000
    for message in messages:
        if message.attributes.sent_timestamp > latest_ms:
            break
    else:
        return messages
    return [m if m.attributes.sent_timestamp <= latest_ms else _undated(m) for m in messages]


def _undated(message: Message) -> Message:
    attributes = msgspec.structs.replace(message.attributes, sent_timestamp=0)
    return msgspec.structs.replace(message, attributes=attributes, odd="SentTimestamp")


def _is_id(value: object) -> bool:
    return type(value) is str and 0 < len(value) <= MESSAGE_ID_MAX and value.isprintable()


def _system(given: dict[str, Any], odd: list[str]) -> SystemAttributes:
    sent_ms = _number(given.get("SentTimestamp"), SENT_MS_MAX)
    if sent_ms is None:
        odd.append("SentTimestamp")
    sequence = given.get("SequenceNumber")
    if sequence is not None and not (type(sequence) is str and _DIGITS.fullmatch(sequence)):
        odd.append("SequenceNumber")
        sequence = None
    receives = _number(given.get("ApproximateReceiveCount"), RECEIVES_MAX)
    first = given.get("ApproximateFirstReceiveTimestamp")
    first_ms = _number(first, SENT_MS_MAX)
    if first is not None and first_ms is None:
        odd.append("ApproximateFirstReceiveTimestamp")
    return SystemAttributes(
        sent_ms or 0,
        1 if receives is None else receives,
        _text(given.get("MessageGroupId")),
        sequence,
        _text(given.get("AWSTraceHeader")),
        _text(given.get("MessageDeduplicationId")),
        first_ms,
        _text(given.get("SenderId")),
        _text(given.get("DeadLetterQueueSourceArn")),
    )


def _text(value: object) -> str | None:
    """Return a text of Unicode characters; None for anything else, lone surrogates included."""
    return value if type(value) is str and not _SURROGATE.search(value) else None


def _number(value: object, most: int) -> int | None:
    """Return a number from 0 to `most`, given as such or as text; None for anything else."""
    if type(value) is str and _DIGITS.fullmatch(value):
        value = int(value)
    return value if type(value) is int and 0 <= value <= most else None
