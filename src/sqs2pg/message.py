"""The types a message passes through: Message -> Record -> Row, or DeadLetter; and its Outcome.

Three types mark how dangerous data is. A `Message` is bytes as received. A `Record` is
cleartext fields. A `Row` is masked and ready to write; the sink accepts only rows, so the type
checker helps to keep cleartext out of the database. `repr` of the first two hides content.

No I/O here, and no import of ours.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from enum import Enum
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta

SENT_MS_MAX = 253_402_300_799_999
"""The last millisecond of the year 9999, since the epoch: neither Python nor an RFC 3339 time knows
a later one."""
RECEIVES_MAX = 2**31 - 1
"""PostgreSQL's integer."""


class Outcome(Enum):
    """How one delivery ended. A delivery ends in exactly one of these."""

    WRITTEN = "written"
    """Its rows are committed. Delete it."""
    DUPLICATE = "duplicate"
    """The ledger has it already; no row changed. Delete it."""
    QUARANTINED = "quarantined"
    """Its sealed body and the reason are in quarantine, committed. Delete it."""
    RELEASED = "released"
    """Not done, because of a transient fault. Keep it: it will be tried or delivered again."""

    @property
    def settled(self) -> bool:
        """Whether the outcome is durable, so that the message may be deleted."""
        return self is not Outcome.RELEASED


class OutcomeCounts(msgspec.Struct, frozen=True):
    """How many deliveries ended in each way."""

    written: int
    duplicate: int
    quarantined: int
    released: int

    @classmethod
    def of(cls, outcomes: Sequence[Outcome]) -> OutcomeCounts:
        """Count outcomes, mostly WRITTEN. By identity: to compare or hash an Enum costs a call, and
        so does a look at its class.
        """
        written = Outcome.WRITTEN
        if outcomes.count(written) == len(outcomes):
            return cls(len(outcomes), 0, 0, 0)
        others = [one for one in outcomes if one is not written]
        counts = Counter(map(id, others))
        return cls(
            len(outcomes) - len(others),
            *[
                counts[id(one)]
                for one in (Outcome.DUPLICATE, Outcome.QUARANTINED, Outcome.RELEASED)
            ],
        )


class SystemAttributes(msgspec.Struct, rename="pascal", frozen=True, gc=False):
    """The message system attributes that we ask for; integers arrive as text and are converted.

    Source: AWS SQS API reference, ReceiveMessage, MessageSystemAttributeNames.
    """

    sent_timestamp: Annotated[int, Meta(ge=0, le=SENT_MS_MAX)]
    """Milliseconds since the epoch; the same over every redelivery."""
    approximate_receive_count: Annotated[int, Meta(ge=0, le=RECEIVES_MAX)] = 1
    message_group_id: str | None = None
    sequence_number: Annotated[str, Meta(pattern="^[0-9]{1,40}$")] | None = None
    """A number of at most 128 bits that rises within a message group of a FIFO queue."""
    aws_trace_header: str | None = msgspec.field(name="AWSTraceHeader", default=None)
    # The rest is asked for only where a mapping reads it.
    message_deduplication_id: str | None = None
    approximate_first_receive_timestamp: Annotated[int, Meta(ge=0, le=SENT_MS_MAX)] | None = None
    """Milliseconds since the epoch."""
    sender_id: str | None = None
    dead_letter_queue_source_arn: str | None = None

    def __repr__(self) -> str:
        return "SystemAttributes(…)"  # a group's name or a sender's may be a person's

    def __rich_repr__(self) -> Any:
        yield "…"


SYSTEM_ATTRIBUTES = {
    "SentTimestamp": "sent_timestamp",
    "ApproximateReceiveCount": "approximate_receive_count",
    "MessageGroupId": "message_group_id",
    "SequenceNumber": "sequence_number",
    "AWSTraceHeader": "aws_trace_header",
    "MessageDeduplicationId": "message_deduplication_id",
    "ApproximateFirstReceiveTimestamp": "approximate_first_receive_timestamp",
    "SenderId": "sender_id",
    "DeadLetterQueueSourceArn": "dead_letter_queue_source_arn",
}
"""By SQS's name: the attribute of SystemAttributes. A message's MessageId is beside them."""
ALWAYS_ASKED = tuple(SYSTEM_ATTRIBUTES)[:5]
"""What every receive asks for: the pipeline itself needs it."""


class MessageAttribute(msgspec.Struct, rename="pascal", frozen=True, gc=False):
    """One producer-set message attribute."""

    data_type: str = ""
    string_value: str | None = None
    binary_value: str | None = None
    """Base64, as SQS sends it."""

    @property
    def text(self) -> str | None:
        """The value of any data type: text, a number's text, or the base64 of binary data."""
        return self.string_value if self.string_value is not None else self.binary_value

    def __repr__(self) -> str:
        return f"MessageAttribute({self.data_type})"

    def __rich_repr__(self) -> Any:
        yield self.data_type


class Message(msgspec.Struct, rename="pascal", gc=False, weakref=False, eq=False):
    """One delivery of one SQS message, decoded straight from ReceiveMessage's JSON.

    `receipt_handle` is the only field that changes: a later delivery of the same message
    brings a newer handle, and only the newest one deletes.
    """

    message_id: str
    receipt_handle: str
    body: str
    attributes: SystemAttributes
    message_attributes: dict[str, MessageAttribute] | None = None
    payload: bytes | None = msgspec.field(name="sqs2pg payload", default=None)
    """The object that the body points to, if fetched. Kept while the message is processed."""
    odd: str = msgspec.field(name="sqs2pg odd", default="")
    """The name of an attribute that was missing or out of its bound; "" for any usual message."""

    @property
    def sequence(self) -> int:
        """SequenceNumber as a number; 0 on a standard queue."""
        return int(self.attributes.sequence_number or 0)

    def __repr__(self) -> str:
        return f"Message({self.message_id})"

    def __rich_repr__(self) -> Any:
        yield self.message_id


def system_attribute(message: Message, name: str) -> str | None:
    """Return what SQS says of a message under one of its own names, as a text; None: nothing."""
    if name == "MessageId":
        return message.message_id
    value = getattr(message.attributes, SYSTEM_ATTRIBUTES[name])
    return None if value is None else str(value)


class Record(msgspec.Struct, frozen=True, gc=False, eq=False):
    """What was read of one object of a body; subclasses are made from the mapping at start."""

    def __repr__(self) -> str:
        return "Record(…)"

    def __rich_repr__(self) -> Any:
        yield "…"


class TargetLines(msgspec.Struct, frozen=True, gc=False, eq=False):
    """The lines of one message for one target."""

    target: int
    text: str
    count: int


class Row(msgspec.Struct, gc=False, eq=False):
    """The masked rows of one message: one ledger entry and `count` lines for a target.

    `text` is PostgreSQL's COPY text format: `count` lines, each ending in a newline, its
    columns in the order of the mapping. A message may have none (each of its records was
    dropped), or lines for further targets, in `also`.
    """

    key: str
    message_id: str
    text: str
    count: int = 1
    target: int = 0
    """Index of the target among the mapping's targets."""
    also: tuple[TargetLines, ...] = ()
    dropped: int = 0
    """Number of the message's records that no target takes."""


class DeadLetter(msgspec.Struct, gc=False, eq=False):
    """One message for the quarantine table: its reason and its sealed body."""

    key: str
    message_id: str
    reason: str
    """A code from a bounded set; never a quotation."""
    detail: str
    """Names a field, column, constraint or record index. Never a value."""
    table: str
    """The one that its rows are for; empty where that is not known."""
    attempts: int
    sent_timestamp: int
    """Milliseconds since the epoch."""
    sealed_body: bytes
    sealed_under: str
    """The key the body is sealed under, as `series:version`."""
    subject: str | None = None
    """Reference of the person the message is about, 32 hex digits, if the body names one."""
    sealed_attributes: bytes | None = None
    """The message attributes that we asked for, sealed likewise."""


class RowChanges(NamedTuple):
    """What became of lines in their table. Each line is in one of the numbers."""

    inserted: int = 0
    updated: int = 0
    """They changed the row of their key."""
    superseded: int = 0
    """Older than the row of their key, or than another line of the batch; they changed nothing."""
    ignored: int = 0
    """The table had a row of their key, which stays (mode "ignore")."""
    deleted: int = 0
    """They deleted the row of their key."""

    @property
    def added(self) -> int:
        """How many rows more the table has."""
        return self.inserted - self.deleted

    def plus(self, other: RowChanges) -> RowChanges:
        """Return the sums."""
        return RowChanges(*map(int.__add__, self, other))
