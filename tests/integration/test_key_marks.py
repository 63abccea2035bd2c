"""A deleted key is remembered in one form, whatever spelling a message has."""

from __future__ import annotations

import itertools
import json
from typing import Any

import psycopg
import pytest

from sqs2pg.errors import SettingsError
from sqs2pg.mapping.columns import Column
from sqs2pg.mapping.conversions import converter_of
from sqs2pg.mapping.key_marks import mark_form
from sqs2pg.message import RowChanges
from sqs2pg.settings import Field
from tests.integration.state_support import write
from tests.integration.support import Assemble, rows
from tests.integration.test_state_tables import DELETES
from tests.integration.test_targets import balanced

Case = tuple[str, dict[str, Any], list[Any]]
EPOCH_MS = {"type": "timestamptz", "format": "epoch_ms"}
# The first two are one key, the last one is another.
UUIDS = [f"018bcfe5-6c3a-7d2b-8e4f-0123456789{end}" for end in ("ab", "ac")]
CASES: list[Case] = [
    ("numeric", {"type": "numeric"}, ["1.0", "1.00", "1", "1e0", "-0", "0", "0.00", "1.01", "10"]),
    ("numeric(6,2)", {"type": "numeric"}, ["1.005", "1.01", "1.0", "1.004", "-0.005", "-0.01"]),
    ("numeric(6,-2)", {"type": "numeric"}, ["150", "249", "149", "250", "0", "12.5"]),
    ("numeric(6,0)", {"type": "bigint"}, ["7", "7.0", "70e-1", "8"]),
    ("double precision", {"type": "double"}, ["1.0", "1", "1e0", "-0.0", "0", "0.1"]),
    ("double precision", {"type": "numeric"}, ["0.1", "0.10000000000000001", "1", "1.0", "0.2"]),
    ("bigint", {"type": "bigint"}, ["7", "7.0", "7e0", "-7", "8"]),
    ("smallint", {"type": "integer"}, ["7", "7.0", "0", "-0", "8"]),
    ("integer", {}, ["7", "007", "+7", "-7"]),
    ("integer", {"type": "version"}, ["1.2", "1.2.0", "1.2.3"]),
    ("char(5)", {}, ["a", "a ", "a    ", "A", " a"]),
    ("uuid", {"type": "uuid"}, [UUIDS[0], UUIDS[0].upper(), UUIDS[1]]),
    ("uuid", {}, [f"{{{UUIDS[0].upper()}}}", UUIDS[0].replace("-", ""), UUIDS[0], UUIDS[1]]),
    (
        "date",
        {"type": "date"},
        ["2026-11-30", "2026-11-30T01:00:00Z", "2026-12-01T00:30:00+01:00", "2026-12-01"],
    ),
    (
        "timestamptz",
        {"type": "timestamptz"},
        [
            "2026-11-30T10:00:00Z",
            "2026-11-30T12:00:00+02:00",
            "2026-11-30T10:00:00.000Z",
            "2026-11-30T10:00:00.5Z",
            "2026-11-30T10:00:00.500000Z",
            "1969-12-31T23:59:59.9Z",
        ],
    ),
    (
        "timestamptz(1)",
        {"type": "timestamptz"},
        [
            "2026-11-30T10:00:00.05Z",
            "2026-11-30T10:00:00.1Z",
            "2026-11-30T10:00:00.04Z",
            "1999-12-31T23:59:59.95Z",
            "2000-01-01T00:00:00Z",
            "1999-12-31T23:59:59.94Z",
            "1999-12-31T23:59:59.9Z",
            "2000-01-10T00:00:00.05Z",
            "2000-01-10T00:00:00.1Z",
        ],
    ),
    (
        "timestamp(0)",
        {"type": "timestamptz"},
        [
            "2026-11-30T23:59:59.5Z",
            "2026-12-01T00:00:00Z",
            "2026-11-30T23:59:59.4Z",
            "0001-01-01T00:00:00Z",
        ],
    ),
    ("timestamptz", {"type": "date"}, ["2026-11-30", "2026-11-30T05:00:00Z", "2026-12-01"]),
    ("timestamptz", EPOCH_MS, ["1764460800000", "1764460800000.0", "1764460800001"]),
    (
        "inet",
        {"type": "inet"},
        [
            "2001:DB8::1",
            "2001:db8:0::1/128",
            "10.0.0.1",
            "10.0.0.1/32",
            "10.0.0.1/24",
            "::ffff:10.0.0.1",
        ],
    ),
    ("cidr", {"type": "inet"}, ["10.0.0.1", "10.0.0.1/32", "10.0.0.0/8", "10.0.0.0/16"]),
    ("boolean", {"type": "boolean"}, ["true", "true", "false"]),
    ("bytea", {"type": "bytea"}, ["AQI=", "AQI=", "AQM="]),
    ("mood", {}, ["fine", "fine", "sad"]),
    ("text", {"type": "numeric"}, ["1.0", "1.0", "1.00", "1"]),
    ("text", {}, ["e\u0301", "e\u0301", "a", "A", "a ", "\u00e9"]),
    ("varchar(9)", {}, ["a", "a", "a ", "A"]),
]
WRITTEN = range(len(CASES))
TABLE = """CREATE TYPE mood AS ENUM ('fine', 'sad');
CREATE TABLE orders (order_id {} PRIMARY KEY, version bigint, state text)"""
BASE = {
    "double precision": "float8",
    "boolean": "bool",
    "bigint": "int8",
    "smallint": "int2",
    "integer": "int4",
    "char": "bpchar",
}
NUMBERS = ("numeric", "double", "bigint", "integer", "boolean")


def column_of(type_: str, field: Field) -> Column:
    base, _, rest = type_.partition("(")
    scale = int(rest.rstrip(")").rpartition(",")[2]) if rest else None
    labels = ("fine", "sad") if base == "mood" else None
    return Column("order_id", BASE.get(base, base), scale=scale, labels=labels)


def asked(database: str, type_: str, texts: list[str]) -> tuple[set[tuple[str, str]], list[str]]:
    """Return which texts are one value to PostgreSQL, and what it makes of each."""
    with psycopg.connect(database, options="-c TimeZone=UTC", autocommit=True) as server:
        server.execute(TABLE.format(type_))
        equal = set()
        for one, other in itertools.combinations(texts, 2):
            query = f"SELECT '{one}'::{type_} = '{other}'::{type_}"
            if server.execute(query).fetchone() == (True,):
                equal.add((one, other))
        stored = [server.execute(f"SELECT '{text}'::{type_}::text").fetchone() for text in texts]
        return equal, [text for (text,) in filter(None, stored)]


@pytest.mark.parametrize(("type_", "more", "spellings"), CASES)
def test_keys_are_one_where_they_are_one_to_postgresql(
    database: str, type_: str, more: dict[str, Any], spellings: list[str]
) -> None:
    field = Field(source="id", column="order_id", **more)
    form, convert = mark_form(field, column_of(type_, field), "orders"), converter_of(field)
    texts = list(dict.fromkeys(map(convert, spellings)))
    equal, stored = asked(database, type_, texts)
    pairs = itertools.combinations(texts, 2)
    assert {(a, b) for a, b in pairs if form(a) == form(b)} == equal
    # What the table has as text is of the same form.
    assert list(map(form, stored)) == list(map(form, texts))


def body(id_: str, version: int, op: str, numbers: bool) -> str:
    key = id_ if numbers else json.dumps(id_)
    return f'{{"id": {key}, "version": {version}, "op": "{op}"}}'


@pytest.mark.parametrize(("type_", "more", "spellings"), [CASES[n] for n in WRITTEN])
async def test_an_older_version_of_any_spelling_stays_deleted(
    pipeline: Assemble, database: str, type_: str, more: dict[str, Any], spellings: list[str]
) -> None:
    rows(database, TABLE.format(type_))
    first, second, *_, other = spellings
    numbers = more.get("type") in NUMBERS or more is EPOCH_MS
    fields = [
        {"source": "id", "column": "order_id"} | more,
        {"source": "version", "column": "version", "type": "bigint"},
    ]
    async with pipeline(sink=DELETES, field=fields) as ready:
        await write(ready, body(first, 1, "set", numbers), body(other, 1, "set", numbers))
        assert (await write(ready, body(second, 5, "delete", numbers)))[1] == RowChanges(deleted=1)
        for late in (first, second):
            done = (await write(ready, body(late, 4, "set", numbers)))[1]
            assert done == RowChanges(superseded=1)
        assert (await write(ready, body(other, 2, "set", numbers)))[1].added == 0
        assert rows(database, "SELECT count(*) FROM orders") == [(1,)]
        assert (await write(ready, body(first, 6, "set", numbers)))[1] == RowChanges(inserted=1)
        assert await balanced(database, ready.sink_plan.id)


@pytest.mark.parametrize(
    ("type_", "more", "said"),
    [
        ("citext", {}, "lower = true"),
        ("real", {"type": "double"}, "the field's own type"),
        ("date", {}, "the field's own type"),
        ("timestamptz", {}, "the field's own type"),
        ("numeric", {}, "the field's own type"),
        ("jsonb", {}, "a column of text"),
        ("macaddr", {}, "the field's own type"),
    ],
)
async def test_a_key_of_several_spellings_is_refused(
    pipeline: Assemble, database: str, type_: str, more: dict[str, Any], said: str
) -> None:
    if type_ == "citext":
        rows(database, "CREATE EXTENSION IF NOT EXISTS citext")
    rows(database, TABLE.format(type_))
    fields = [
        {"source": "id", "column": "order_id"} | more,
        {"source": "version", "column": "version", "type": "bigint"},
    ]
    with pytest.raises(SettingsError, match="order_id") as refused:
        async with pipeline(sink=DELETES, field=fields):
            pass
    assert refused.value.code == "target_key"
    assert said in refused.value.hint
    upsert = {key: value for key, value in DELETES.items() if key != "delete_when"}
    async with pipeline(sink=upsert, field=fields):
        pass  # nothing is remembered


async def test_a_key_of_the_day_or_moment_of_sending_is_remembered(
    pipeline: Assemble, database: str
) -> None:
    rows(
        database,
        "CREATE TABLE orders (day date, sent timestamptz, id text, version bigint,"
        " PRIMARY KEY (id, day))",
    )
    fields = [
        {"source": "day", "column": "day", "type": "date", "default": "sent_date"},
        {"source": "id", "column": "id"},
        {"source": "version", "column": "version", "type": "bigint"},
    ]
    async with pipeline(sink=DELETES | {"key": ["id", "day"]}, field=fields) as ready:
        await write(ready, '{"id": "a", "version": 1}')
        [(day,)] = rows(database, "SELECT day::text FROM orders")
        gone = json.dumps({"id": "a", "version": 5, "op": "delete", "day": day})
        assert (await write(ready, gone))[1] == RowChanges(deleted=1)
        assert (await write(ready, '{"id": "a", "version": 4}'))[1] == RowChanges(superseded=1)
