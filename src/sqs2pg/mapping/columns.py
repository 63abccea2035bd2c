"""The target table's columns as read at start, and the check of a mapping against them.

What can be foreseen from the columns (a length, a range, NOT NULL) is decided before the
database sees a row. No I/O here: the sink reads the catalog.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from sqs2pg.errors import SettingsError
from sqs2pg.mapping.arrays import BRACKETS
from sqs2pg.mapping.field_types import ARRAY, FIELD_TYPES, INTEGER_RANGES, TEXT_TYPES
from sqs2pg.mask.registry import OPERATORS, mask_length
from sqs2pg.settings import Field, Settings, Target

_SUBJECT_TYPES = TEXT_TYPES | {"uuid", "numeric", *INTEGER_RANGES}
"""Types of a column of person ids in which an erasure can put a random id."""


class Column(msgspec.Struct, frozen=True):
    """One column of the target table, from pg_attribute."""

    name: str
    type: str
    """pg_type.typname, such as `varchar` or `int4`; a domain's base type. Of an array it is that
    of its elements, after `_`."""
    length_max: int | None = None
    """Characters, for varchar(n) and char(n), and for each element of arrays of them."""
    nullable: bool = True
    filled: bool = False
    """The database fills it by itself: a default, an identity or a generated column."""
    generated: bool = False
    """GENERATED ALWAYS: a value must not be sent."""
    labels: tuple[str, ...] | None = None
    """Of an enum, or of an array's enum."""
    scale: int | None = None
    """Digits after the point that numeric(p, s), timestamp(p) and timestamptz(p) keep; below 0:
    zeros before it."""


def sql_type(field: Field) -> str:
    """Return the SQL type of the column that `migrate` makes for a field."""
    element = _element_type(field)
    if field.mask == "keep" and element != "text":
        return FIELD_TYPES[field.type].sql_type
    text = f"varchar({field.length_max})" if field.length_max else "text"
    return text if element == field.type else text + BRACKETS


def column_for(field: Field) -> Column:
    """Return the column that `migrate` makes for a field, as the catalog would describe it."""
    element = _element_type(field)
    if field.mask == "keep" and element != "text":
        return Column(field.column, FIELD_TYPES[field.type].catalog_names[0])
    array = "" if element == field.type else ARRAY
    if field.length_max:
        return Column(field.column, array + "varchar", field.length_max)
    return Column(field.column, array + "text")


def _element_type(field: Field) -> str:
    return FIELD_TYPES[field.type].element or field.type


def match(
    fields: Iterable[Field], columns: Mapping[str, Column], table: str, *, narrowed: bool = False
) -> list[Column]:
    """Return the column of each field, in the order of the fields.

    `narrowed`: accept a column shorter than the mapping says; values that do not fit it are
    quarantined then.

    Raises SettingsError where the table cannot take what the mapping gives: a column is missing,
    shorter than the mapping says, of another type, generated, or NOT NULL with neither a field nor
    a default.
    """
    fields = list(fields)
    matched = [_match_one(field, columns, table, narrowed=narrowed) for field in fields]
    given = {field.column for field in fields}
    for column in columns.values():
        if not (column.nullable or column.filled or column.name in given):
            raise SettingsError(
                f"column {column.name!r} of table {table} is NOT NULL without a default, "
                "and no field fills it",
                code="target_column",
                table=table,
                column=column.name,
                hint=f"map a field to it, or ALTER TABLE {table} ALTER COLUMN {column.name} "
                "DROP NOT NULL",
            )
    return matched


def _match_one(
    field: Field, columns: Mapping[str, Column], table: str, *, narrowed: bool
) -> Column:
    column = columns.get(field.column)
    if column is None:
        raise SettingsError(
            f"table {table} has no column {field.column!r}, which field {field.name!r} goes to",
            code="target_column",
            table=table,
            column=field.column,
            hint=f"ALTER TABLE {table} ADD COLUMN {field.column} …, or change the [[field]]",
        )
    if column.generated:
        raise SettingsError(
            f"column {column.name!r} of table {table} is generated; field {field.name!r} "
            "cannot be written to it",
            code="target_column",
            table=table,
            column=column.name,
            hint="map the field to another column",
        )
    masked_to_text = field.mask not in ("keep", "nullify") and not _takes_mask(field, column)
    if masked_to_text or (field.mask == "keep" and not _takes_kept(field, column)):
        gives = f"type {field.type!r}"
        if masked_to_text:
            gives = "an array of masked text" if _is_array(field) else "masked text"
        raise SettingsError(
            f"column {column.name!r} of table {table} is {column.type}, but field "
            f"{field.name!r} gives {gives}",
            code="target_column",
            table=table,
            column=column.name,
            hint="change the column's type or the field's `type` and `mask`",
        )
    if field.mask == "nullify" and not column.nullable:
        raise SettingsError(
            f"column {column.name!r} of table {table} is NOT NULL, but field {field.name!r} "
            "is nullified",
            code="target_column",
            table=table,
            column=column.name,
            hint=f"ALTER TABLE {table} ALTER COLUMN {column.name} DROP NOT NULL, or use "
            'mask = "redact"',
        )
    _check_length(field, column, table, narrowed=narrowed)
    return column


def _is_array(field: Field) -> bool:
    return bool(FIELD_TYPES[field.type].element)


def _takes_mask(field: Field, column: Column) -> bool:
    type_ = column.type
    if _is_array(field):
        if not type_.startswith(ARRAY):
            return False
        type_ = type_.removeprefix(ARRAY)
    return type_ in TEXT_TYPES or type_ == OPERATORS[field.mask].column_types.get(field.kind)


def _takes_kept(field: Field, column: Column) -> bool:
    accepted = FIELD_TYPES[field.type].accepted
    if accepted is None:  # a text, or texts in an array, of which the column's type decides
        return not _is_array(field) or column.type.startswith(ARRAY)
    return column.type in accepted


def _check_length(field: Field, column: Column, table: str, *, narrowed: bool) -> None:
    least = FIELD_TYPES[field.type].length or mask_length(field.mask, field.kind)
    if field.length_max and field.length_max < least:
        raise SettingsError(
            f"field {field.name!r} gives {least} characters, but its length_max is "
            f"{field.length_max}",
            code="target_column",
            hint=f"set length_max to {least} or more, or remove it",
        )
    needed = least if narrowed else max(field.length_max or 0, least)
    if column.length_max and column.length_max < needed:
        raise SettingsError(
            f"column {column.name!r} of table {table} holds {column.length_max} characters, "
            f"but field {field.name!r} may need {needed}",
            code="target_column",
            table=table,
            column=column.name,
            hint=f"ALTER TABLE {table} ALTER COLUMN {column.name} TYPE varchar({needed})"
            + (", or set length_max on the [[field]]" if needed > least else ""),
        )


def check_subject(settings: Settings, target: Target, columns: Mapping[str, Column]) -> None:
    """Refuse a table that has person ids where an erasure could not find or replace them.

    Raises SettingsError `subject_column`, where the vault is on.
    """
    if not settings.vault.enabled:
        return
    table, subject = target.table, settings.vault.subject
    kept = [f for f in target.fields if f.first_source == subject and f.mask == "keep"]
    for number, field in enumerate(kept):
        column = columns.get(field.column)
        if column is None:
            continue  # `match` refuses it
        # An erasure finds rows by the first one, and sets the others to NULL where that is allowed.
        if number == 0 or not column.nullable:
            require_replaceable(column.name, column.type, table)
        if column.type == "uuid" and field.type != "uuid":
            raise SettingsError(
                f"column {column.name!r} of table {table} is uuid, but field {field.name!r} "
                f"(vault.subject) is {field.type!r}: the table stores one spelling of an id, while "
                "the vault would take each spelling for another person",
                code="subject_column",
                hint='set type = "uuid" on the [[field]]: then all spellings are one person',
            )


def require_replaceable(column: str, type_: str, table: str) -> None:
    """Refuse a column in which an erased person's id could not be replaced.

    `type_` is as `Column.type`. Raises SettingsError `subject_column`.
    """
    if type_ not in _SUBJECT_TYPES:
        raise SettingsError(
            f"column {column!r} of table {table} has the person's id (vault.subject) and is "
            f"{type_}: an erasure could not replace the id by a random one there",
            code="subject_column",
            hint="keep the id in a column of text, uuid, an integer type or numeric, or mask it "
            "with pseudonymize",
        )
