"""Conversions: from the JSON of a field's source to the text of its column, step by step.

    source ─▶ trim ─▶ lower, upper ─▶ empty ─▶ map ─▶ format, or the type ─▶ mask

Compiled from a field's settings: what its value may be in JSON (`json_kind`), how its text is
edited (`text_editor`), and what the text becomes (`converter_of`). A mask takes what these give.
No I/O here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date, tzinfo
from functools import partial

import msgspec

from sqs2pg.errors import PermanentFault, Stage
from sqs2pg.mapping import convert, json_slices
from sqs2pg.mapping.convert import Converter
from sqs2pg.mapping.field_types import FIELD_TYPES, JsonKind
from sqs2pg.mapping.moments import (
    Local,
    Moment,
    date_text,
    epoch_moment,
    iso8601,
    moment_of,
    offset_in,
    rfc3339,
    strptime,
    timestamp_text,
)
from sqs2pg.settings import Field
from sqs2pg.settings.fields import EPOCHS
from sqs2pg.settings.time_zones import zone_of

Editor = Callable[[str], str | None]
"""From the text of a value to the one that is converted; None: the value is missing. Raises
PermanentFault."""

_FROM_TEXT: dict[JsonKind, JsonKind] = {
    "number": "number_text",
    "boolean": "boolean_text",
    "any": "json_text",
}
_NOT_FINITE = ("NaN", "Infinity", "-Infinity")
"""Numbers that JSON has no form for, as protobuf's JSON mapping writes them."""
_WHOLE = re.compile(r"-?[0-9]{1,18}\Z")


def json_kind(field: Field) -> JsonKind:
    """Return what a field's value must be in JSON."""
    of_type = FIELD_TYPES[field.type].json_kind
    if of_type == "array":
        return of_type
    if field.map:
        return "scalar"
    if field.format in EPOCHS:
        return "number_text"
    return _FROM_TEXT.get(of_type, of_type) if field.from_ == "text" else of_type


def converts(field: Field) -> bool:
    """Whether a value is edited, or converted in another way than its type's own."""
    return bool(field.edits_text or field.format or field.from_)


def unconverted(field: Field) -> Field:
    """Return the field without a source, for a default that has the form of its type."""
    return msgspec.structs.replace(
        field,
        source="",
        expression="",
        required=False,
        from_="",
        format="",
        timezone="",
        trim=False,
        lower=False,
        upper=False,
        empty="keep",
        map={},
        otherwise=None,
    )


def constant_text(value: str | float | bool) -> str:
    """Return a constant of the settings as the text that a converter takes."""
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


def text_editor(field: Field, *, is_default: bool = False) -> Editor | None:
    """Return the function that edits the text of a field's value; None where nothing is edited.

    `is_default`: of a constant default, to which `otherwise` does not apply. The editor raises
    PermanentFault `not_in_map`.
    """
    if not field.edits_text:
        return None
    change_case = str.lower if field.lower else str.upper if field.upper else None
    known = {key: constant_text(value) for key, value in field.map.items()}
    otherwise = None if is_default else _otherwise(field)

    def edited(value: str) -> str | None:
        text = value.strip() if field.trim else value
        if change_case:
            text = change_case(text)
        if not text and field.empty == "null":
            return None
        found = known.get(text)
        if found is not None or otherwise is None:
            return text if found is None else found
        return otherwise(text)

    return edited


def _otherwise(field: Field) -> Editor | None:
    """Return what becomes of a text that is not in the map; None: it is kept."""
    if not field.map or field.otherwise == "keep":
        return None
    if field.otherwise is None or field.otherwise == "quarantine":
        return _not_in_map
    if field.otherwise == "null":
        return lambda _: None
    constant = constant_text(field.otherwise)
    return lambda _: constant


def _not_in_map(_: str) -> str | None:
    raise PermanentFault("not_in_map", stage=Stage.MASK)


def map_results(field: Field) -> list[str]:
    """Return every text that the map can give."""
    results = [constant_text(value) for value in field.map.values()]
    if field.map and field.otherwise not in (None, "quarantine", "keep", "null"):
        assert field.otherwise is not None
        results.append(constant_text(field.otherwise))
    return results


def edited_or_missing(field: Field) -> Converter:
    """Return the function that edits an id. It raises PermanentFault `no_subject` where none is
    left.
    """
    edit = text_editor(field)
    if edit is None:
        return convert.text

    def edited(value: str) -> str:
        text = edit(value)
        if not text:
            raise PermanentFault("no_subject", stage=Stage.MASK)
        return text

    return edited


def converter_of(field: Field) -> Converter:
    """Return the function from a field's edited text to the text of its column.

    It raises PermanentFault with the codes of `convert.py`: `bad_date` and `bad_timestamp` for
    texts that are not in the field's format, `out_of_range` for a moment that PostgreSQL does not
    have.
    """
    if field.format:
        return _formatted(field)
    if field.from_ == "text" and field.type == "double":
        return _double
    if field.from_ == "text" and field.type == "jsonb":
        return _jsonb
    return FIELD_TYPES[field.type].convert


def _double(value: str) -> str:
    return value if value in _NOT_FINITE else convert.double(value)


def _jsonb(value: str) -> str:
    return convert.jsonb(json_slices.parse(value).text)


def _formatted(field: Field) -> Converter:
    zone = zone_of(field.timezone) if field.timezone else None
    is_date = field.type == "date"
    read = _reader(field, zone)
    bad = "bad_date" if is_date else "bad_timestamp"

    def converted(value: str) -> str:
        found = read(value)
        if isinstance(found, date):
            if is_date:
                return found.isoformat()
            midnight = Local(found, 0)
            found = None if zone is None else moment_of(midnight, offset_in(zone, midnight))
        if found is None:
            raise PermanentFault(bad, stage=Stage.MASK)
        return date_text(found) if is_date else timestamp_text(found)

    return converted


def _reader(field: Field, zone: tzinfo | None) -> Callable[[str], Moment | date | None]:
    if field.format in EPOCHS:
        return partial(_epoch, per_second=EPOCHS[field.format])
    if field.format == "iso8601":
        return partial(iso8601, zone=zone)
    if field.format == "rfc3339":
        return _rfc3339_date if field.type == "date" else partial(rfc3339, colon=True)
    return partial(strptime, pattern=field.format, zone=zone)


def _rfc3339_date(value: str) -> Moment | date | None:
    return convert.full_date(value) or rfc3339(value, colon=True)


def _epoch(value: str, per_second: int) -> Moment | None:
    if per_second == 1 and _WHOLE.match(value):
        return Moment(int(value))
    number = convert.number(value)
    return None if number is None else epoch_moment(number, per_second)
