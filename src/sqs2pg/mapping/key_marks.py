"""Marks of keys: the HMACs by which deleted rows of state tables are remembered.

PostgreSQL takes 1.0 and 1.00 for one number, and 10:00+00:00 and 12:00+02:00 for one moment. So a
mark is of the one form that all spellings of a key have, by the type of its column. A key that is
masked is marked by its cleartext, in the form that its mask gives equal tokens. The HMAC's key
never rotates. Pure.

Must never do: give one key of the table two marks. Where the forms are not known, a column is
refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import ROUND_HALF_UP, Context, Decimal

from msgspec import structs

from sqs2pg.errors import PermanentFault, SettingsError, Stage
from sqs2pg.keys.derive import hkdf_sha256
from sqs2pg.mapping.columns import Column
from sqs2pg.mapping.convert import NUMERIC_FRACTION_MAX, NUMERIC_WHOLE_MAX
from sqs2pg.mapping.field_types import INTEGER_RANGES
from sqs2pg.mask.canonical import CANONICAL, Canonical
from sqs2pg.mask.canonical import ip as packed_ip
from sqs2pg.mask.canonical import uuid as packed_uuid
from sqs2pg.mask.operator import Operator
from sqs2pg.mask.pseudonymize import pseudonymize
from sqs2pg.settings import Field, Target
from sqs2pg.settings.staged_fields import MARK, staged_fields

_EXACT = Context(prec=NUMERIC_WHOLE_MAX + NUMERIC_FRACTION_MAX, Emin=-999_999, Emax=999_999)
_INTEGERS = ("integer", "bigint", "version", "major")
_NUMBERS = (*_INTEGERS, "numeric", "double")
_MOMENT = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})(?:[ T]([0-9]{2}):([0-9]{2}):([0-9]{2})(\.[0-9]+)?"
    r"(?:\+00(?::?00)?|Z)?)?\Z"
)
_MICROSECOND = timedelta(microseconds=1)
# The moment from which PostgreSQL counts, and away from which it rounds.
_EPOCH = datetime(2000, 1, 1)  # noqa: DTZ001 - in UTC, like the texts
_NOT_ONE_FORM = {
    "citext": "letters of either case are equal there: set lower = true on the [[field]]",
    "json": "let the key be a column of text, uuid, a number or a date",
    "jsonb": "let the key be a column of text, uuid, a number or a date",
}

Form = Callable[[str], bytes]
"""From the text of a value, as PostgreSQL reads or writes it, to the form of all its spellings."""


def mark_operators(
    target: Target, columns: Sequence[Column], reference_key: bytes
) -> list[Operator | None]:
    """Return the operators of the staged fields of a target, in their order; None keeps.

    `columns` are those of its fields, in their order. Raises SettingsError as `mark_operator`.
    """
    return [
        mark_operator(
            target, columns, reference_key, target.write.key[int(field.column.removeprefix(MARK))]
        )
        if field.column.startswith(MARK)
        else None
        for field in staged_fields(target)
    ]


def mark_operator(
    target: Target, columns: Sequence[Column], reference_key: bytes, name: str
) -> Operator:
    """Return the operator that marks one column of a target's key, from the converted value.

    Raises SettingsError as `mark_form`, where records delete rows. An erasure makes do with the
    person's id as a text.
    """
    number = target.write.key.index(name)
    pairs = zip(target.fields, columns, strict=True)
    field, column = next(pair for pair in pairs if pair[0].column == name)
    secret = hkdf_sha256(reference_key, f"sqs2pg/1/tombstone/{MARK}{number}".encode())
    try:
        form = mark_form(field, column, target.table)
    except SettingsError:
        if target.write.delete_when is not None:
            raise
        form = CANONICAL["text"]
    operator = pseudonymize(0, secret, form)
    assert operator.token is not None
    native = "" if form is CANONICAL.get(field.mask_kind) else _NATIVE.get(form)
    if form is _whole and field.type == "text":
        native = None  # 007 is 7
    return replace(operator, token=structs.replace(operator.token, form=native))


def mark_form(field: Field, column: Column, table: str) -> Canonical:
    """Return the function to the one form of a key's values.

    Raises SettingsError `target_key` where a key may have several spellings.
    """
    if field.mask != "keep":
        return _text if field.mask == "sha256" else CANONICAL[field.mask_kind]
    form = _form(field, column)
    if form is None:
        hint = _NOT_ONE_FORM.get(column.type) or (
            "let the column be of the field's own type, or set the field's `type` (with "
            'from = "text" where messages have texts)'
        )
        raise SettingsError(
            f"key column {column.name!r} of table {table} is {column.type}, and its field gives "
            f"{field.type}: with delete_when a key has one spelling, by which a deleted row is "
            "remembered",
            code="target_key",
            table=table,
            column=column.name,
            hint=hint,
        )
    return form


def _form(field: Field, column: Column) -> Form | None:
    type_, of = column.type, field.type
    if column.labels is not None or type_ in ("text", "varchar"):
        return None if of == "jsonb" else _text
    if type_ == "bpchar":
        return lambda text: _text(text.rstrip(" "))
    if type_ == "citext":
        return _text if field.lower or field.upper else None
    if type_ == "uuid":
        return packed_uuid if of in ("uuid", "text") else None
    if type_ in INTEGER_RANGES:
        return _whole if of in (*_INTEGERS, "text") else None
    if of in _NUMBERS and type_ == "numeric":
        return lambda text: _number(text, column.scale)
    if of in _NUMBERS and type_ == "float8":
        return lambda text: repr(float(text) + 0.0).encode()
    if of in ("date", "timestamptz") and type_ in ("date", "timestamp", "timestamptz"):
        return lambda text: _moment(text, column.scale)
    if of == "inet" and type_ in ("inet", "cidr"):
        return _address
    return _text if (of, type_) in (("boolean", "bool"), ("bytea", "bytea")) else None


def _text(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        pass
    raise PermanentFault("bad_unicode", stage=Stage.MASK)


def _whole(text: str) -> bytes:
    try:
        return str(int(text)).encode()
    except ValueError:
        pass
    raise PermanentFault("bad_integer", stage=Stage.MASK)


def _number(text: str, scale: int | None) -> bytes:
    number = Decimal(text)
    if not number.is_finite():
        return str(number).encode()
    if scale is not None:
        number = number.quantize(Decimal((0, (1,), -scale)), ROUND_HALF_UP, _EXACT)
    return str(number.normalize(_EXACT)).encode() if number else b"0"


def _moment(text: str, scale: int | None) -> bytes:
    """Return a UTC timestamp, or a day as its first moment, to the digits that the column keeps."""
    match = _MOMENT.match(text)
    if match is None or match[1] == "0000":  # before year 1 or after 9999
        return text.encode()
    year, month, day, hour, minute, second = (int(part or 0) for part in match.groups()[:6])
    moment = datetime(year, month, day, hour, minute)  # noqa: DTZ001
    micros = (moment - _EPOCH) // _MICROSECOND + second * 1_000_000
    micros += int(f"{match[7] or '.'}000000"[1:7])
    step = 10 ** (6 - (6 if scale is None else scale))
    rounded = (abs(micros) + step // 2) // step * step
    return str(rounded if micros >= 0 else -rounded).encode()


def _address(text: str) -> bytes:
    address, _, bits = text.partition("/")
    packed = packed_ip(address)
    if ":" in address and len(packed) == 4:  # PostgreSQL takes them for two addresses
        packed = bytes(10) + b"\xff\xff" + packed
    return packed + bytes([int(bits) if bits else 8 * len(packed)])


_NATIVE: Mapping[Form, str] = {_text: "exact", _whole: "exact", packed_uuid: "uuid"}
"""The forms that the extension makes, too: those of the other types are left to Python."""
