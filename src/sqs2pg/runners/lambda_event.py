"""The event of an SQS event source mapping: its records as messages. No I/O.

Lambda spells the names of a record in its own way; the system attributes have SQS's own names.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from sqs2pg.errors import FatalFault
from sqs2pg.message import Message, MessageAttribute, SystemAttributes
from sqs2pg.sqs.odd_deliveries import read_entry


class _Attribute(msgspec.Struct, rename="camel"):
    data_type: str
    string_value: str | None = None
    binary_value: str | None = None


class _Record(msgspec.Struct, rename="camel"):
    """One record of the event, in Lambda's spelling. The system attributes have SQS's own names."""

    message_id: str
    receipt_handle: str
    body: str
    attributes: SystemAttributes
    event_source_arn: str = msgspec.field(name="eventSourceARN")
    message_attributes: dict[str, _Attribute] = {}


class _Event(msgspec.Struct, rename="pascal"):
    records: list[_Record]


def messages_of(event: object) -> tuple[list[Message], bool]:
    """Return the event's messages, and whether they come from a FIFO queue.

    Raises FatalFault if it is not the event of an SQS event source mapping.
    """
    try:
        records = msgspec.convert(event, _Event, strict=False).records
    except (msgspec.ValidationError, UnicodeError):
        return _messages_one_by_one(event)
    messages = [
        Message(
            record.message_id,
            record.receipt_handle,
            record.body,
            record.attributes,
            {
                name: MessageAttribute(one.data_type, one.string_value, one.binary_value)
                for name, one in record.message_attributes.items()
            }
            or None,
        )
        for record in records
    ]
    return messages, any(record.event_source_arn.endswith(".fifo") for record in records)


def _messages_one_by_one(event: object) -> tuple[list[Message], bool]:
    """As `messages_of`, for an event in which some record is odd: that one is quarantined."""
    records = event.get("Records") if isinstance(event, Mapping) else None
    messages: list[Message] = []
    fifo = False
    for record in records if isinstance(records, list) else [None]:
        source = record.get("eventSourceARN") if isinstance(record, Mapping) else None
        message = read_entry(record, camel=True)
        if message is None or not isinstance(source, str):
            raise FatalFault(
                "the event is not one of an SQS event source mapping",
                code="not_an_sqs_event",
                hint="connect the function to an SQS queue, with ReportBatchItemFailures",
            )
        messages.append(message)
        fifo = fifo or source.endswith(".fifo")
    return messages, fifo
