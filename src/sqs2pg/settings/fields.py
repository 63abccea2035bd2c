"""The mapping's part of the settings: fields, envelopes, indexes, examples.

Place in the flow: decode, transform and the target's columns are compiled from these. They are only
declared here; `load.py` reads them and `rules.py` checks them together. No I/O.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

DROP = "drop"
"""Not an operator: the `mask` of a field that is known and written nowhere."""

Positive = Annotated[int, Meta(ge=1)]
# The end of a pattern in Python and in JSON Schema alike: `$` alone lets a newline follow.
END = r"$(?!\n)"
# A column or table name reaches SQL only quoted; the bound is PostgreSQL's NAMEDATALEN.
NO_NUL = rf"^[^\x00]*{END}"
Name = Annotated[str, Meta(min_length=1, max_length=63, pattern=NO_NUL)]
JSON_NAME = rf'^[^"\\\x00-\x1f]*{END}'  # what msgspec takes as the name of a field

TypeName = Literal[
    "text",
    "integer",
    "bigint",
    "numeric",
    "double",
    "boolean",
    "date",
    "timestamptz",
    "uuid",
    "inet",
    "jsonb",
    "version",
    "major",
    "bytea",
    "interval",
    "text[]",
    "integer[]",
    "bigint[]",
    "numeric[]",
    "double[]",
    "boolean[]",
    "date[]",
    "timestamptz[]",
    "uuid[]",
    "inet[]",
    "bytea[]",
    "interval[]",
]
Kind = Literal["ip", "text", "email", "phone", "uuid"]
Constant = str | int | float | bool
Path = Annotated[str, Meta(min_length=1, max_length=256, pattern=JSON_NAME)]
EPOCHS = {"epoch_s": 1, "epoch_ms": 1_000, "epoch_us": 1_000_000}
"""Formats of a moment as a number: how many of its unit make a second."""


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One table of the settings file."""


class Field(Section, frozen=True):
    """`[[field]]`: one field of the message and the column it goes to."""

    column: Name = ""
    source: Annotated[
        Path | Annotated[tuple[Path, ...], Meta(min_length=1)],
        Meta(
            description="a path such as user.address.city or items[0].sku; $ is the whole record; "
            "sqs:NAME and attribute:NAME come with the message; "
            "of a list, the first that is present and not null; "
            "without a source every row has the default",
        ),
    ] = ""
    expression: Annotated[
        str,
        Meta(
            max_length=4096,
            description="instead of a source: JMESPath, such as join('-', [region, "
            "to_string(id)]), evaluated on the record",
        ),
    ] = ""
    type: TypeName = "text"
    from_: Annotated[
        Literal["", "text"],
        Meta(description="text: numbers and booleans may come in quotes, too"),
    ] = msgspec.field(default="", name="from")
    format: Annotated[
        str,
        Meta(
            max_length=100,
            description="how a date or timestamptz is written: epoch_s, epoch_ms, epoch_us, "
            "rfc3339, iso8601, or a pattern of strptime such as %d.%m.%Y %H:%M; default: rfc3339",
        ),
    ] = ""
    timezone: Annotated[
        str,
        Meta(
            max_length=100,
            description="of times without an offset: a name such as Europe/Berlin, UTC, or +02:00",
        ),
    ] = ""
    trim: Annotated[bool, Meta(description="without the white space around it")] = False
    lower: Annotated[bool, Meta(description="in lower case")] = False
    upper: Annotated[bool, Meta(description="in upper case")] = False
    empty: Annotated[
        Literal["keep", "null"], Meta(description="null: an empty text counts as missing")
    ] = "keep"
    map: Annotated[
        dict[str, Constant], Meta(description="what stands for the value: map = {a = 'b'}")
    ] = {}
    otherwise: Annotated[
        Constant | None,
        Meta(
            description="for values that are not in `map`: quarantine (default), keep, null, or "
            'a constant; with kind = "ip": "text" masks what is no address as a text'
        ),
    ] = None
    required: bool = False
    default: Annotated[
        Constant | None,
        Meta(
            description="a constant, or sent_date, sent_time, message_id, record_index, "
            "attribute:NAME, sqs:NAME"
        ),
    ] = None
    mask: Annotated[
        str,
        Meta(
            description="the operator that masks the value; `drop`: the field is known and "
            "counted, but written nowhere, so it has no column"
        ),
    ] = "keep"
    domain: str = ""
    kind: Kind = "text"
    recover: bool = False
    possible_values: Annotated[
        Positive | None,
        Meta(description="how many values it can have, for check --attack; default: by `kind`"),
    ] = None
    length_max: Positive | None = None
    over_length: Annotated[
        Literal["quarantine", "truncate"],
        Meta(description="what to do with a text longer than length_max or its column"),
    ] = "quarantine"

    @property
    def sources(self) -> tuple[str, ...]:
        """The paths that its value is looked for at, in their order; none without a source."""
        if isinstance(self.source, str):
            return (self.source,) if self.source else ()
        return self.source

    @property
    def is_read(self) -> bool:
        """Whether its value is looked for: it has a source or an expression."""
        return bool(self.sources or self.expression)

    @property
    def mask_kind(self) -> str:
        """The kind of value that its mask takes."""
        mixed = self.kind == "ip" and not self.map and self.otherwise == "text"
        return "ip_or_text" if mixed else self.kind

    @property
    def body_sources(self) -> tuple[str, ...]:
        """Those of its sources that are paths in the body."""
        return tuple(source for source in self.sources if not is_of_message(source))

    @property
    def first_source(self) -> str:
        """The first of its sources, by which other settings and the vault know it; or ""."""
        return next(iter(self.sources), "")

    @property
    def name(self) -> str:
        """The name in faults and errors: its first source, or its column if it has none."""
        return self.first_source or self.column

    @property
    def edits_text(self) -> bool:
        """Whether the value's text is changed before its type converts it."""
        return self.trim or self.lower or self.upper or self.empty == "null" or bool(self.map)


# In terms of JSON Schema: a column is required unless the field is dropped.
_COLUMN_UNLESS_DROPPED = Meta(
    extra_json_schema={
        "if": {"properties": {"mask": {"const": DROP}}, "required": ["mask"]},
        "else": {"required": ["column"]},
    }
)
Declared = Annotated[Field, _COLUMN_UNLESS_DROPPED]


class Index(Section, frozen=True):
    """`[[index]]`: an index of a target. `migrate` builds it without blocking writers."""

    columns: Annotated[tuple[Name, ...], Meta(min_length=1)]
    method: Literal["btree", "brin"] = "btree"
    table: Annotated[str, Meta(description="default: the first target")] = ""
    name: Annotated[str, Meta(max_length=63)] = ""


class Example(Section, frozen=True):
    """`[[example]]`: a message, and the rows or the fault that the mapping must give for it."""

    input: Annotated[
        str | dict[str, Any], Meta(description="the body: a table for JSON, or the text itself")
    ]
    name: str = ""
    row: Annotated[
        dict[str, Any],
        Meta(description='its row; "masked" for any mask; a column left out is NULL'),
    ] = {}
    rows: Annotated[
        tuple[dict[str, Any], ...], Meta(description='several rows; "@table" names a route\'s')
    ] = ()
    fault: Annotated[str, Meta(description="the reason code it is quarantined with")] = ""
    attributes: dict[str, str] = {}
    payload: Annotated[str | None, Meta(description="the S3 object that the body points to")] = None
    sent_at: datetime | None = None
    message_id: str = ""


class EnvelopeSettings(Section, frozen=True):
    """`[envelope]`: what the records of a message are wrapped in."""

    layers: Annotated[
        tuple[
            Literal[
                "auto",
                "s3",
                "sns",
                "eventbridge",
                "content_encoding",
                "base64",
                "gzip",
                "zstd",
                "s3_event",
            ],
            ...,
        ],
        Meta(
            description="layers to take off, outermost first; auto: those that are certain; "
            "s3_event, the last one: a notification of S3, whose objects are read line by line"
        ),
    ] = ()
    records: Annotated[
        Literal["one", "array", "lines", "auto"],
        Meta(description="a message is one JSON document, an array of them, or one per line"),
    ] = "one"
    decompressed_bytes_max: Annotated[int, Meta(ge=1024, le=2**31 - 1)] = 64 * 2**20
    s3_bytes_max: Annotated[
        int,
        Meta(
            ge=1024,
            le=2**31 - 1,
            description="size of one object that a message points to or that is not made of lines; "
            "in a backfill of one document in it",
        ),
    ] = 64 * 2**20
    s3_delete: Annotated[
        bool,
        Meta(description="delete the object once its rows are committed; needs s3_buckets"),
    ] = False
    s3_buckets: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=2048, pattern=NO_NUL)], ...],
        Meta(
            description="buckets that messages may point to; a pointer to another one is "
            'quarantined; with "auto" no pointer is followed without this list; "s3_event" needs it'
        ),
    ] = ()
    s3_removed: Annotated[
        Literal["ignore", "quarantine"],
        Meta(
            description="what becomes of a notification that tells of no new content: an object "
            "was removed, tagged, archived"
        ),
    ] = "ignore"

    @property
    def has_pointers(self) -> bool:
        """Whether objects of S3 are fetched. Where nobody said so or named buckets, none are."""
        return "s3" in self.layers or ("auto" in self.layers and bool(self.s3_buckets))

    @property
    def has_objects(self) -> bool:
        """Whether messages are notifications of S3, and the units are lines of its objects."""
        return "s3_event" in self.layers

    @property
    def of_notifications(self) -> "EnvelopeSettings":
        """What a notification is wrapped in."""
        return msgspec.structs.replace(self, layers=self.layers[:-1], records="one")

    @property
    def of_units(self) -> "EnvelopeSettings":
        """What the body of a unit is wrapped in. The line of an object is in no layer."""
        return msgspec.structs.replace(self, layers=()) if self.has_objects else self


POINTER_SIZES = ("ExtendedPayloadSize", "SQSLargePayloadSize")
"""Message attributes in which the S3 extended clients put the payload's size in bytes."""
CONTENT_ENCODING = "Content-Encoding"
"""The message attribute that the layer `content_encoding` reads: gzip, zstd, base64."""
ENVELOPE_ATTRIBUTES = ("sns.", "eventbridge.", "s3.")
"""Prefixes of the attributes that an envelope adds; they are not message attributes of SQS."""
ENVELOPE_NAMES = frozenset(
    {
        *("sns.MessageId", "sns.TopicArn", "sns.Timestamp", "sns.Subject"),
        *("eventbridge.id", "eventbridge.detail-type", "eventbridge.source"),
        *("eventbridge.account", "eventbridge.time", "eventbridge.region"),
        *("s3.bucket", "s3.key"),
    }
)
"""The attributes that envelopes add."""
SYSTEM_NAMES = frozenset(
    {
        *("ApproximateFirstReceiveTimestamp", "ApproximateReceiveCount", "AWSTraceHeader"),
        *("DeadLetterQueueSourceArn", "MessageDeduplicationId", "MessageGroupId", "MessageId"),
        *("SenderId", "SentTimestamp", "SequenceNumber", "SqsManagedSseEnabled"),
    }
)
"""Names of SQS's own attributes of a message (SQS API reference, ReceiveMessage). They are no
message attributes, which producers set."""
ATTRIBUTE = "attribute:"
"""The prefix of a source or default that names a message attribute."""
SYSTEM = "sqs:"
"""The prefix of a source or default that names an attribute of the message that SQS sets."""
EXPRESSION = "\x00expression:"
"""The prefix of the key of a field that has an expression; its column follows."""
RECORD_INDEX = "\x00record_index"
_NOWHERE = "\x00nowhere"


def is_of_message(source: str) -> bool:
    """Whether a source, or a default, names a value that comes beside the body."""
    return source.startswith((ATTRIBUTE, SYSTEM))


def read_of_message(field: Field) -> list[str]:
    """Return the names that a field reads beside the body, with their prefixes."""
    given = [*field.sources, field.default]
    return [one for one in given if isinstance(one, str) and is_of_message(one)]


def attribute_keys(field: Field) -> tuple[str, ...]:
    """Return the keys of a field among a record's attributes: its sources, or a stand-in."""
    if field.expression:
        return (EXPRESSION + field.column,)
    return field.sources or (RECORD_INDEX if field.default == "record_index" else _NOWHERE,)


def required_sources(fields: Iterable[Field]) -> dict[str, bool]:
    """Return the attribute keys of fields in their order, and whether any field requires each.

    What is missing is known later where there are several sources, or where a text is changed.
    """
    required: dict[str, bool] = {}
    for field in fields:
        keys = attribute_keys(field)
        alone = field.required and len(keys) == 1 and not field.edits_text
        for source in keys:
            required[source] = required.get(source, False) or alone
    return required


USER_LOGINS: tuple[Field, ...] = (
    Field(source="user_id", column="user_id", required=True, length_max=128),
    Field(source="device_type", column="device_type", length_max=32),
    Field(
        source="ip",
        column="masked_ip",
        mask="pseudonymize",
        kind="ip",
        recover=True,
        length_max=256,
    ),
    Field(
        source="device_id",
        column="masked_device_id",
        mask="pseudonymize",
        recover=True,
        possible_values=10**9,  # NNN-NN-NNNN
        length_max=256,
    ),
    Field(source="locale", column="locale", length_max=32),
    Field(source="app_version", column="app_version", type="version"),
    Field(source="create_date", column="create_date", type="date", default="sent_date"),
)
"""The built-in mapping, and the target table that its users already have."""
