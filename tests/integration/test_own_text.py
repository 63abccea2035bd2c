"""Numbers and JSON reach the database as they were written; PostgreSQL makes them canonical."""

from __future__ import annotations

import json

import pytest

from sqs2pg.mapping.json_slices import DEPTH_MAX
from sqs2pg.message import Message, Outcome, SystemAttributes
from tests.integration.support import Assemble, rows
from tests.native import extension

FIELDS = [
    {"source": "n", "column": "n", "type": "numeric"},
    {"source": "j", "column": "j", "type": "jsonb"},
]
NUMBERS = {
    "1.50": "1.50",
    "-0": "0",
    "1E-3": "0.001",
    "1.5e3": "1500",
    "12345678901234567890.123456789": "12345678901234567890.123456789",
    "9" * 1_500: "9" * 1_500,
    "1e999": "1" + "0" * 999,
}
NEST = "[" * (DEPTH_MAX - 1) + "]" * (DEPTH_MAX - 1)
VALUES = {
    '{"b" :\t1.50,\n"a": [1E2 , -0]}': '{"a": [100, 0], "b": 1.50}',
    '{"a": 1, "a": 2}': '{"a": 2}',
    r'"\u00e9\\\ud83d\ude00\n"': json.dumps("é\\\U0001f600\n", ensure_ascii=False),
    NEST: NEST,
}


@pytest.mark.parametrize("native", ["1", "0"])
async def test_numbers_and_json_are_made_canonical_by_the_database(
    pipeline: Assemble, database: str, monkeypatch: pytest.MonkeyPatch, native: str
) -> None:
    monkeypatch.setattr("sqs2pg.native.EXTENSION", extension())
    monkeypatch.setenv("SQS2PG_NATIVE", native)
    bodies = [f'{{"n":{number},"j":null}}' for number in NUMBERS]
    bodies += [f'{{"n":1,"j":{value}}}' for value in VALUES]
    messages = [
        Message(
            f"00000000-0000-4000-8000-{i:012}", "-", body, SystemAttributes(1_700_000_000_000 + i)
        )
        for i, body in enumerate(bodies)
    ]
    async with pipeline(sink={"table": "own_text"}, field=FIELDS) as ready:
        outcomes = await ready.processors[0].process(messages)
    assert outcomes == [Outcome.WRITTEN] * len(messages)
    found = rows(database, "SELECT n::text, j::text FROM own_text")
    expected = [(number, None) for number in NUMBERS.values()]
    expected += [("1", value) for value in VALUES.values()]
    assert sorted(found, key=str) == sorted(expected, key=str)
