"""The mapping's part of the settings: fields, routes, envelopes, indexes, examples.

Place in the flow: what decode, transform and the target's columns are compiled from. Only what is
declared; `rules.py` holds it together, `load.py` reads it. No I/O.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

DROP = "drop"
"""Not an operator: the policy of a field that is known and goes nowhere."""

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
]
Kind = Literal["ip", "text", "email", "phone", "uuid"]


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One table of the settings file."""


class Field(Section, frozen=True):
    """`[[field]]`: one field of the message and the column it goes to."""

    column: Name = ""
    source: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=256,
            pattern=JSON_NAME,
            description="a path such as user.address.city or items[0].sku; $ is the whole record; "
            "without it every row has the default",
        ),
    ] = ""
    type: TypeName = "text"
    required: bool = False
    default: Annotated[
        str | int | float | bool | None,
        Meta(
            description="a constant, or sent_date, sent_time, message_id, record_index, "
            "attribute:NAME"
        ),
    ] = None
    mask: Annotated[
        str,
        Meta(
            description="the operator that masks the value; `drop`: known, counted, and written "
            "nowhere, so without a column"
        ),
    ] = "keep"
    domain: str = ""
    kind: Kind = "text"
    recover: bool = False
    possible_values: Annotated[
        Positive | None,
        Meta(description="how many values it can have; else known from `kind`. For check --attack"),
    ] = None
    length_max: Positive | None = None
    over_length: Annotated[
        Literal["quarantine", "truncate"],
        Meta(description="what becomes of a text longer than length_max or its column"),
    ] = "quarantine"

    @property
    def name(self) -> str:
        """What faults and errors call it: its source, or its column where it has none."""
        return self.source or self.column


# In JSON Schema's words: a column, unless it is dropped.
_COLUMN_UNLESS_DROPPED = Meta(
    extra_json_schema={
        "if": {"properties": {"mask": {"const": DROP}}, "required": ["mask"]},
        "else": {"required": ["column"]},
    }
)
Declared = Annotated[Field, _COLUMN_UNLESS_DROPPED]


class When(Section, frozen=True):
    """`when` of a route: a field of the record and what it must be; all that is given must hold."""

    field: Annotated[str, Meta(min_length=1, max_length=256, pattern=JSON_NAME)]
    equals: str | int | float | bool | None = None
    any_of: tuple[str | int | float | bool, ...] = ()
    exists: bool | None = None


class Route(Section, frozen=True):
    """`[[route]]`: the records that go to one table. Each goes wherever its `when` holds."""

    table: Annotated[str, Meta(min_length=1, pattern=NO_NUL, description="table or schema.table")]
    when: Annotated[
        When | None, Meta(description="without it: the records that no route with one took")
    ] = None
    explode: Annotated[
        str, Meta(max_length=256, pattern=JSON_NAME, description="an array; a row an element")
    ] = ""
    field: tuple[Declared, ...] = ()


class Target(msgspec.Struct, frozen=True):
    """One table and what goes there, whichever way the settings say it."""

    table: str
    fields: tuple[Field, ...]
    explode: str = ""
    when: When | None = None


class Index(Section, frozen=True):
    """`[[index]]`: an index of a target, built by `migrate` without holding up writers."""

    columns: Annotated[tuple[Name, ...], Meta(min_length=1)]
    method: Literal["btree", "brin"] = "btree"
    table: Annotated[str, Meta(description="else the first target")] = ""
    name: Annotated[str, Meta(max_length=63)] = ""


class Example(Section, frozen=True):
    """`[[example]]`: a message, and the rows or the fault that the mapping must make of it."""

    input: Annotated[
        str | dict[str, Any], Meta(description="the body: a table for JSON, or the text itself")
    ]
    name: str = ""
    row: Annotated[
        dict[str, Any], Meta(description='its row; "masked" for any mask; left out: NULL')
    ] = {}
    rows: Annotated[
        tuple[dict[str, Any], ...], Meta(description='several rows; "@table" names a route\'s')
    ] = ()
    fault: Annotated[str, Meta(description="the code it is set aside with")] = ""
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
            ],
            ...,
        ],
        Meta(description="what to take off, outermost first; auto: what is surely there"),
    ] = ()
    records: Annotated[
        Literal["one", "array", "lines", "auto"],
        Meta(description="a message is one JSON document, an array of them, or a line each"),
    ] = "one"
    decompressed_bytes_max: Annotated[int, Meta(ge=1024, le=2**31 - 1)] = 64 * 2**20
    s3_bytes_max: Annotated[
        int, Meta(ge=1024, le=2**31 - 1, description="of one object that a message points to")
    ] = 64 * 2**20
    s3_delete: Annotated[
        bool, Meta(description="delete the object once its rows are committed")
    ] = False

    @property
    def has_pointers(self) -> bool:
        """Whether bodies may be in S3."""
        return bool({"auto", "s3"} & set(self.layers))


POINTER_SIZES = ("ExtendedPayloadSize", "SQSLargePayloadSize")
"""Message attributes in which the S3 extended clients put the payload's size in bytes."""
CONTENT_ENCODING = "Content-Encoding"
"""The message attribute that the layer `content_encoding` reads: gzip, zstd, base64."""
ENVELOPE_ATTRIBUTES = ("sns.", "eventbridge.", "s3.")
"""How the names of what an envelope says begin; no message attributes of SQS."""
ATTRIBUTE = "attribute:"
"""How a default names a message attribute."""
RECORD_INDEX = "\x00record_index"
_NOWHERE = "\x00nowhere"


def attribute_key(field: Field) -> str:
    """Return what a field's attribute of a record is found under: its source, or a stand-in."""
    return field.source or (RECORD_INDEX if field.default == "record_index" else _NOWHERE)


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
