"""Field types: one record for each `type` that a field of the mapping can have.

A record says what the field's JSON value must be, how it is converted, which column `migrate`
makes for it, and which columns it can be written to. Everything that depends on a field's type
reads it here. What the settings need to know about types is in `settings/mask_rules.py` (which
can be masked) and `settings/rules.py` (which take a default from the message). No I/O here.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from sqs2pg.mapping import convert
from sqs2pg.mapping.arrays import BRACKETS, array_converter
from sqs2pg.mapping.base64_text import bytea
from sqs2pg.mapping.convert import Converter
from sqs2pg.mapping.durations import interval

JsonKind = Literal[
    "string",
    "number",
    "boolean",
    "array",
    "any",
    "number_text",
    "boolean_text",
    "scalar",
    "json_text",
]
"""What a field's value is in JSON. `any`: an object, an array or anything else, kept as JSON. Of
fields that convert text (`conversions.py`) it may be a string, too: `number_text`, `boolean_text`;
`scalar`: a string, a number or a boolean; `json_text`: a string is JSON once more."""

# PostgreSQL documentation, chapter 8.1, numeric types.
INTEGER_RANGES = {
    "int2": (-(2**15), 2**15 - 1),
    "int4": (-(2**31), 2**31 - 1),
    "int8": (-(2**63), 2**63 - 1),
}
"""Smallest and largest value of each integer type, by its name in the catalog."""
TEXT_TYPES = frozenset({"text", "varchar", "bpchar", "citext", "name"})
"""Catalog names of types that hold any text."""
_FRACTION_TYPES = frozenset({"numeric", "float4", "float8"})
NUMBER_TYPES = _FRACTION_TYPES | INTEGER_RANGES.keys()
"""Catalog names of types that hold numbers."""
ARRAY = "_"
"""What stands before an element's catalog name in that of an array (CREATE TYPE, array types)."""


class FieldType(msgspec.Struct, frozen=True):
    """What a `type` means, from the JSON value to the column."""

    name: str
    json_kind: JsonKind
    convert: Converter
    """From the value's text to the column's text. Raises PermanentFault."""
    sql_type: str
    """The column that `migrate` makes for a field that is kept. A `text` field with a
    `length_max` gets varchar(n) instead."""
    catalog_names: tuple[str, ...]
    """pg_type.typname of `sql_type`, then of other columns that `init` reads as this type."""
    accepted: frozenset[str] | None
    """Catalog names of the columns that a kept field can be written to. None: any column."""
    length: int = 0
    """Characters that the converted text has at least, an array's elements each; 0: as many as the
    value needs."""
    element: str = ""
    """Of an array: the type of its elements."""


_SCALARS = {
    record.name: record
    for record in (
        FieldType("text", "string", convert.text, "text", ("text",), None),
        FieldType(
            "integer",
            "number",
            convert.integer,
            "integer",
            ("int4", "int2"),
            NUMBER_TYPES | TEXT_TYPES,
        ),
        FieldType(
            "bigint", "number", convert.bigint, "bigint", ("int8",), NUMBER_TYPES | TEXT_TYPES
        ),
        FieldType(
            "numeric",
            "number",
            convert.numeric,
            "numeric",
            ("numeric",),
            _FRACTION_TYPES | TEXT_TYPES,
        ),
        FieldType(
            "double",
            "number",
            convert.double,
            "double precision",
            ("float8", "float4"),
            _FRACTION_TYPES | TEXT_TYPES,
        ),
        FieldType(
            "boolean", "boolean", convert.boolean, "boolean", ("bool",), TEXT_TYPES | {"bool"}
        ),
        FieldType(
            "date",
            "string",
            convert.date,
            "date",
            ("date",),
            TEXT_TYPES | {"date", "timestamp", "timestamptz"},
            length=len("YYYY-MM-DD"),
        ),
        FieldType(
            "timestamptz",
            "string",
            convert.timestamptz,
            "timestamptz",
            ("timestamptz", "timestamp"),
            TEXT_TYPES | {"timestamp", "timestamptz"},
        ),
        FieldType("uuid", "string", convert.uuid, "uuid", ("uuid",), TEXT_TYPES | {"uuid"}),
        FieldType("inet", "string", convert.inet, "inet", ("inet",), TEXT_TYPES | {"inet", "cidr"}),
        FieldType(
            "jsonb",
            "any",
            convert.jsonb,
            "jsonb",
            ("jsonb", "json"),
            TEXT_TYPES | {"json", "jsonb"},
        ),
        FieldType("version", "string", convert.version, "integer", ("int4",), NUMBER_TYPES),
        FieldType("major", "string", convert.major, "integer", ("int4",), NUMBER_TYPES),
        FieldType("bytea", "string", bytea, "bytea", ("bytea",), TEXT_TYPES | {"bytea"}),
        FieldType(
            "interval", "string", interval, "interval", ("interval",), TEXT_TYPES | {"interval"}
        ),
    )
}
_NO_ELEMENTS = ("jsonb", "version", "major")
"""Types without an array: `jsonb` takes arrays itself, and the others are not columns' types."""


def _array_of(element: FieldType) -> FieldType:
    """Return the type of arrays with such elements."""
    accepted = element.accepted
    return FieldType(
        element.name + BRACKETS,
        "array",
        array_converter(element.json_kind, element.convert),
        element.sql_type + BRACKETS,
        tuple(ARRAY + name for name in element.catalog_names),
        None if accepted is None else frozenset(ARRAY + name for name in accepted),
        element.length,
        element.name,
    )


FIELD_TYPES: dict[str, FieldType] = _SCALARS | {
    record.name: record
    for record in (_array_of(one) for one in _SCALARS.values() if one.name not in _NO_ELEMENTS)
}
"""By name. Where two have a catalog name, `init` proposes the first one."""


def type_of_column(catalog_name: str) -> str:
    """Return the field type that `init` proposes for a column; `text` where none fits.

    For an array of a type that none fits, such as an enum, that is `text[]`.
    """
    fitting = (t.name for t in FIELD_TYPES.values() if catalog_name in t.catalog_names)
    return next(fitting, "text[]" if catalog_name.startswith(ARRAY) else "text")
