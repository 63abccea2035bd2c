"""Examples: messages written into the settings, and the rows or the fault they must give.

They run without a queue or a database, through the same decoding and masking as real messages, and
under a fixed key: tokens in examples reveal nothing about real ones. A column that an example does
not name must be NULL.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec

from sqs2pg.errors import PermanentFault, SettingsError
from sqs2pg.keys.keyring import Keyring
from sqs2pg.mapping.columns import column_for
from sqs2pg.mapping.compile import MessageMapping, compile_mapping
from sqs2pg.mapping.copy_text import values
from sqs2pg.mapping.field_types import FIELD_TYPES
from sqs2pg.message import Message, MessageAttribute, Row, SystemAttributes, TargetLines
from sqs2pg.settings import SYSTEM, Example, Field, Settings, Target

MASKED = "masked"
"""What an example may expect of a masked column: any mask, but not NULL."""
TEST_ROOT = bytes(range(100, 132))
"""The pseudonym root of examples. It is public, and used for nothing else."""

_MESSAGE_ID = "3f1c1a52-6a0b-4c3e-9b1d-000000000001"


class Difference(msgspec.Struct, frozen=True):
    """One difference between an example and what the mapping makes of it."""

    example: str
    what: str


def test_keyring() -> Keyring:
    """Return the keys that examples are masked with."""
    return Keyring(pseudonym={1: TEST_ROOT}, vault={1: TEST_ROOT[::-1]}, provider="examples")


def compile_offline(settings: Settings, masks: Sequence[Sequence[Any]]) -> MessageMapping:
    """Compile the mapping against the columns that `migrate` would make."""
    columns = [[column_for(field) for field in target.fields] for target in settings.targets]
    return compile_mapping(settings, columns, masks)


def check_examples(settings: Settings, mapping: MessageMapping) -> Iterator[Difference]:
    """Yield every difference, in the order of the examples.

    Raises SettingsError for an example that names a column or table that the mapping lacks.
    """
    for number, example in enumerate(settings.example):
        name = example.name or f"example {number + 1}"
        for what in _compare(settings, mapping, example, name):
            yield Difference(name, what)


def _compare(
    settings: Settings, mapping: MessageMapping, example: Example, name: str
) -> Iterator[str]:
    made = _run(mapping, example)
    if isinstance(made, PermanentFault):
        found = f"{made.code} {made.detail}".rstrip()
        if example.fault not in (made.code, found):
            asked = f"fault {example.fault}" if example.fault else "rows"
            yield f"expected {asked}, got fault {found}"
        return
    if example.fault:
        yield f"expected fault {example.fault}, got {made.count + _also(made)} rows"
        return
    expected = _expected(settings, example, name)
    for target, wanted_rows in zip(settings.targets, expected, strict=True):
        rows = _rows(settings, made, target)
        where = f" of table {target.table}" if len(settings.targets) > 1 else ""
        if len(rows) != len(wanted_rows):
            yield f"expected {len(wanted_rows)} rows{where}, got {len(rows)}"
        for index, (wanted, row) in enumerate(zip(wanted_rows, rows, strict=False)):
            place = f" in row {index}" if len(wanted_rows) > 1 else ""
            for field, cell in zip(target.fields, row, strict=True):
                if difference := _differs(field, wanted.get(field.column), cell):
                    yield f"column {field.column}{place}{where}: {difference}"


def _also(row: Row) -> int:
    return sum(part.count for part in row.also)


def body_of(example: Example) -> str:
    """Return the body of the message that an example is: its text, or its table as JSON."""
    body = example.input
    if isinstance(body, str):
        return body
    return json.dumps(body, default=_json, ensure_ascii=False)


def _run(mapping: MessageMapping, example: Example) -> Row | PermanentFault:
    sent = example.sent_at.timestamp() if example.sent_at else 0.0
    message = Message(
        example.message_id or _MESSAGE_ID,
        "",
        body_of(example),
        _system_attributes(example, round(sent * 1000)),
        {
            name: MessageAttribute("String", value)
            for name, value in example.attributes.items()
            if not name.startswith(SYSTEM)
        },
    )
    if example.payload is not None:
        message.payload = example.payload.encode()
    try:
        decoded = mapping.decode(message)
    except PermanentFault as fault:
        return fault
    [row] = mapping.rows(["key"], [message], [decoded])
    return row


def _system_attributes(example: Example, sent_ms: int) -> SystemAttributes:
    """Return what SQS says of an example's message: of its attributes, those called sqs:NAME."""
    given: dict[str, Any] = {"SentTimestamp": sent_ms}
    given |= {
        name.removeprefix(SYSTEM): value
        for name, value in example.attributes.items()
        if name.startswith(SYSTEM)
    }
    try:
        return msgspec.convert(given, SystemAttributes, strict=False)
    except msgspec.ValidationError:
        pass
    raise SettingsError(
        "an example has a value of SQS that no message could have",
        hint="its attributes sqs:NAME are as the SQS API reference describes them, numbers as text",
    )


def _json(value: Any) -> Any:
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    raise TypeError


def _expected(settings: Settings, example: Example, name: str) -> list[list[Mapping[str, Any]]]:
    """Return the expected rows of each target."""
    rows: list[Mapping[str, Any]] = [*example.rows, *([example.row] if example.row else [])]
    by_table: dict[str, list[Mapping[str, Any]]] = {t.table: [] for t in settings.targets}
    first = settings.targets[0].table
    for row in rows:
        table = row.get("@table", first)
        if table not in by_table:
            raise SettingsError(
                f"{name} expects a row of table {table!r}, which no route goes to",
                hint=f'"@table" is one of: {", ".join(by_table)}',
            )
        known = {f.column for t in settings.targets if t.table == table for f in t.fields}
        if unknown := row.keys() - known - {"@table"}:
            raise SettingsError(
                f"{name} expects column {min(unknown)!r}, which no field goes to",
                hint=f"columns of {table}: {', '.join(sorted(known))}",
            )
        by_table[table].append(row)
    return list(by_table.values())


def _rows(settings: Settings, row: Row, target: Target) -> list[list[str | None]]:
    position = settings.targets.index(target)
    parts: list[Row | TargetLines] = [row, *row.also]
    text = "".join(part.text for part in parts if part.target == position)
    return [values(line) for line in text.split("\n")[:-1]]


def _differs(field: Field, wanted: Any, cell: str | None) -> str:
    """Return how a cell differs from the wanted value; "" where it does not."""
    if wanted is None:
        return "" if cell is None else f"expected NULL, got {cell!r}"
    if cell is None:
        return f"expected {wanted!r}, got NULL"
    if wanted == MASKED and field.mask != "keep":
        return ""
    if isinstance(wanted, list):
        same = cell == _array_text(field, wanted)
    elif field.type == "jsonb" and field.mask == "keep":
        same = _same_json(wanted, cell)
    else:
        same = _same(wanted, cell)
    return "" if same else f"expected {wanted!r}, got {cell!r}"


def _same(wanted: Any, cell: str) -> bool:
    if isinstance(wanted, bool):
        return cell == ("true" if wanted else "false")
    if isinstance(wanted, int | float):
        try:
            return Decimal(cell) == Decimal(str(wanted))
        except InvalidOperation:
            return False
    if isinstance(wanted, datetime):
        try:
            found = datetime.fromisoformat(cell)
        except ValueError:
            return False
        return found == (wanted if wanted.tzinfo else wanted.replace(tzinfo=UTC))
    if isinstance(wanted, date):
        return cell == wanted.isoformat()
    return cell == str(wanted)


def _array_text(field: Field, wanted: Sequence[Any]) -> str | None:
    """Return the text of the wanted array; None where it is none of the field's type.

    TOML has no null, so a NULL among the elements is compared as a text: '{a,NULL}'.
    """
    type_ = field.type if field.mask == "keep" else "text[]"
    try:
        return FIELD_TYPES[type_].convert(json.dumps(wanted, default=_json, ensure_ascii=False))
    except PermanentFault:
        return None


def _same_json(wanted: Any, cell: str) -> bool:
    if isinstance(wanted, str):
        try:
            wanted = json.loads(wanted)
        except ValueError:
            return False
    return bool(json.loads(cell) == json.loads(json.dumps(wanted, default=_json)))
