"""Arrays, `bytea`, intervals, enums and domains: what PostgreSQL makes of the cells."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import psycopg
import pytest

from sqs2pg.mapping.durations import interval
from sqs2pg.mapping.field_types import FIELD_TYPES
from sqs2pg.message import Outcome
from sqs2pg.runners.pipeline import Pipeline
from tests.integration.support import Assemble, receive, rows, send
from tests.unit.mapping.test_durations import GOOD

ARRAYS: dict[str, tuple[str, str]] = {
    "text[]": (
        r'["a", "", null, "NULL", "null", "a,b", "{x}", "q\"\\", "tab\t\n", "\\N", "é", " "]',
        '{a,"",NULL,"NULL","null","a,b","{x}","q\\"\\\\","tab\t\n","\\\\N",é," "}',
    ),
    "integer[]": ("[1, null, -7.0]", "{1,NULL,-7}"),
    "bigint[]": ("[9007199254740993]", "{9007199254740993}"),
    "numeric[]": ("[1.50, 1e3]", "{1.50,1000}"),
    "double[]": ("[0.1, -1e22]", "{0.1,-1e+22}"),
    "boolean[]": ("[true, null]", "{t,NULL}"),
    "date[]": ('["2020-02-29"]', "{2020-02-29}"),
    "timestamptz[]": ('["2020-02-29T23:30:00-01:00"]', '{"2020-03-01 00:30:00+00"}'),
    "uuid[]": (
        '["424CDD21-063A-43A7-B91B-7CA1A833AFAE"]',
        "{424cdd21-063a-43a7-b91b-7ca1a833afae}",
    ),
    "inet[]": ('["2001:DB8::1", "10.0.0.0/8"]', "{2001:db8::1,10.0.0.0/8}"),
    "bytea[]": ('["AP8=", ""]', '{"\\\\x00ff","\\\\x"}'),
    "interval[]": ('["P1Y2DT3H", "-00:00:01.5"]', '{"1 year 2 days 03:00:00",-00:00:01.5}'),
    "bytea": ('"AP8="', "\\x00ff"),
    "interval": ('"P1Y2M3DT4H5M6.5S"', "1 year 2 mons 3 days 04:05:06.5"),
}
PIECES = ('"', "\\", ",", "{", "}", "NULL", "null", " ", "\t", "\n", "\r", "\v", "a", "é", "", "\f",
          "\\N", "'", "\U0001f600")  # fmt: skip


# With a rule, rows go by INSERT, from a staging table of the same types.
WAYS = pytest.mark.parametrize("rule", ["", "CREATE RULE none AS ON INSERT TO {} DO ALSO NOTHING"])


@WAYS
async def test_every_array_and_new_type_arrives(
    pipeline: Assemble, database: str, rule: str
) -> None:
    assert {name for name in FIELD_TYPES if name.endswith("[]")} < set(ARRAYS)
    fields: list[dict[str, Any]] = [
        {"source": f"v['{name}']", "column": name, "type": name} for name in ARRAYS
    ]
    tokens = {"source": "people", "column": "people", "type": "text[]", "mask": "pseudonymize"}
    body = ", ".join(f'"{name}": {given}' for name, (given, _) in ARRAYS.items())
    empty = ", ".join(f'"{name}": []' for name in ARRAYS if name.endswith("[]"))
    settings: dict[str, Any] = {"sink": {"table": "typed"}, "field": [*fields, tokens]}
    async with pipeline(**settings):
        rows(database, rule.format("typed") or "SELECT")
    async with pipeline(**settings) as ready:
        bodies = [f'{{"v": {{{body}}}, "people": ["u1", null, "u1"]}}', f'{{"v": {{{empty}}}}}']
        await send(ready, bodies)
        outcomes = await ready.processors[0].process(await receive(ready, 2))
        assert outcomes == [Outcome.WRITTEN] * 2
        names = ", ".join(f'"{name}"::text' for name in ARRAYS)
        with psycopg.connect(database, options="-c TimeZone=UTC") as connection:
            query = f"SELECT {names} FROM typed WHERE people IS NOT NULL"
            found = connection.execute(query).fetchone()
        assert found == tuple(expected for _, expected in ARRAYS.values())
        [(of_empty, people)] = rows(
            database,
            'SELECT (SELECT "uuid[]"::text FROM typed WHERE people IS NULL), people FROM typed'
            " WHERE people IS NOT NULL",
        )
        assert of_empty == "{}"
        assert people[0] == people[2]
        assert people[0].startswith("v1_")
        assert people[1] is None


def test_postgresql_reads_back_the_elements_and_writes_the_same_text(database: str) -> None:
    draw = Random(18)
    convert = FIELD_TYPES["text[]"].convert
    arrays = [
        [
            None if draw.random() < 0.1 else "".join(draw.choices(PIECES, k=draw.randint(0, 4)))
            for _ in range(draw.randint(1, 6))
        ]
        for _ in range(2_000)
    ]
    texts = [convert(json.dumps(one)) for one in arrays]
    with psycopg.connect(database) as connection:
        cursor = connection.execute(
            "SELECT t::text[]::text, to_json(t::text[]) FROM unnest(%s::text[]) WITH ORDINALITY"
            " AS u (t, n) ORDER BY n",
            [texts],
        )
        found = cursor.fetchall()
    assert [text for text, _ in found] == texts
    assert [elements for _, elements in found] == arrays


def test_postgresql_takes_every_duration_as_it_takes_the_original(database: str) -> None:
    draw = Random(7)
    made = [
        "P"
        + "".join(f"{draw.randint(-20, 20)}{unit}" for unit in "YMWD" if draw.random() < 0.5)
        + f"T{draw.randint(-99, 99)}M{draw.randint(-70, 70)}.{draw.randint(0, 10**6):06}S"
        for _ in range(500)
    ]
    # PostgreSQL knows no sign before the P, no comma, and rounds what is below a microsecond.
    given = [text for text, _ in GOOD if text[:2] != "-P" and "," not in text] + made
    ours = [interval(text) for text in given]
    with psycopg.connect(database) as connection:
        for style in ("postgres", "sql_standard", "iso_8601", "postgres_verbose"):
            connection.execute(f"SET intervalstyle = {style}")
            differ = connection.execute(
                "SELECT a, b FROM unnest(%s::text[], %s::text[]) AS u (a, b)"
                " WHERE b::interval::text <> a::interval::text",
                [given, ours],
            ).fetchall()
            if style == "sql_standard":  # there a first sign counts for what follows
                differ = [pair for pair in differ if not pair[0].startswith("-")]
            assert differ == []
        limits = ["P-178956970Y-8M-2147483648DT-2562047788H-54.775808S",
                  "P178956970Y7M2147483647DT2562047788H54.775807S"]  # fmt: skip
        for text in limits:
            [(back,)] = connection.execute("SELECT %s::interval::text", [interval(text)]).fetchall()
            assert back


TYPES = """CREATE TYPE mood AS ENUM ('sad', 'ok');
CREATE DOMAIN short AS varchar(3) NOT NULL;
CREATE DOMAIN shorter AS short;
CREATE DOMAIN feeling AS mood;
CREATE DOMAIN small AS smallint;
CREATE DOMAIN moods AS mood[];
CREATE DOMAIN zero AS integer NOT NULL DEFAULT 0;
CREATE TABLE strict (id text, one mood, two shorter, three feeling, four small, five moods,
                     six varchar(2)[], seven zero, eight small[])"""
STRICT = [
    {"source": "id", "column": "id"},
    {"source": "one", "column": "one"},
    {"source": "two", "column": "two"},
    {"source": "three", "column": "three", "default": "ok"},
    {"source": "four", "column": "four", "type": "integer"},
    {"source": "five", "column": "five", "type": "text[]"},
    {"source": "six", "column": "six", "type": "text[]"},
    {"source": "eight", "column": "eight", "type": "integer[]"},
]
STRICT_BODIES = {
    "good": ({"one": "ok", "two": "abc", "five": ["sad", None], "six": ["ab"], "eight": [1]}, ""),
    "enum": ({"one": "glad", "two": "a"}, "not_in_enum one"),
    "case": ({"one": "OK", "two": "a"}, "not_in_enum one"),
    "empty": ({"one": "", "two": "a"}, "not_in_enum one"),
    "length": ({"two": "abcd"}, "too_long two"),
    "null": ({}, "missing_field two"),
    "domain of enum": ({"two": "a", "three": "x"}, "not_in_enum three"),
    "range": ({"two": "a", "four": 32768}, "out_of_range four"),
    "array of enum": ({"two": "a", "five": ["x"]}, "not_in_enum five"),
    "element's length": ({"two": "a", "six": ["abc"]}, "too_long six"),
    "element's range": ({"two": "a", "eight": [40000]}, "out_of_range eight"),
}


async def process(ready: Pipeline, bodies: list[str]) -> list[Outcome]:
    await send(ready, bodies)
    return await ready.processors[0].process(await receive(ready, len(bodies)))


@WAYS
async def test_enums_and_domains_are_known_before_the_database_sees_a_row(
    pipeline: Assemble, database: str, rule: str
) -> None:
    rows(database, TYPES)
    rows(database, rule.format("strict") or "SELECT")
    async with pipeline(sink={"table": "strict"}, field=STRICT) as ready:
        bodies = [json.dumps({"id": name, **body}) for name, (body, _) in STRICT_BODIES.items()]
        for body in bodies:
            await process(ready, [body])
        [(row,)] = rows(
            database, "SELECT (id, one, two, three, five, six, seven)::text FROM strict"
        )
        assert row == '(good,ok,abc,ok,"{sad,NULL}",{ab},0)'
        found = rows(
            database, "SELECT concat_ws(' ', reason, detail) FROM sqs2pg.quarantine ORDER BY id"
        )
        assert [reason for (reason,) in found] == [fault for _, fault in STRICT_BODIES.values()][1:]


async def test_a_label_that_is_added_counts_without_a_restart(
    pipeline: Assemble, database: str
) -> None:
    rows(database, TYPES)
    async with pipeline(sink={"table": "strict"}, field=STRICT) as ready:
        glad = json.dumps({"id": "x", "one": "glad", "two": "a"})
        assert await process(ready, [glad]) == [Outcome.QUARANTINED]
        rows(database, "ALTER TYPE mood ADD VALUE 'glad'")
        assert await process(ready, [glad]) == [Outcome.WRITTEN]
