"""`delete_when` holds for the records that a route's `when` of the same conditions takes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sqs2pg.mapping.condition import DocumentCondition
from sqs2pg.mapping.expression import Expression
from sqs2pg.mapping.expression_views import StepBudget, Viewer
from sqs2pg.mapping.json_slices import parse
from sqs2pg.settings import expressions
from sqs2pg.settings.routes import Target
from sqs2pg.settings.sections import Field
from sqs2pg.settings.staged_fields import staged_fields
from sqs2pg.settings.when import When
from sqs2pg.settings.write_modes import WriteMode

UUID = "018bcfe5-6c3a-7d2b-8e4f-0123456789ab"
VALUES = [
    *("1", "1.0", "10e-1", "0", "-0", "7", "0.1", "0.10", "9007199254740993", "9007199254740992"),
    *("true", "false", "null", '"true"', '"1"', '""', '"d"', '"D"', '"\\u0064"', '"d "'),
    *("[]", "{}", '["d"]', '{"d": 1}', f'"{UUID}"', f'"{UUID.upper()}"'),
    *('"2026-11-30"', '"2026-11-30T10:00:00Z"', '"2026-11-30T10:00:00+00:00"'),
    *('"back\\\\tick`"', '"quote\'"', '"e\u0301"', '"\u00e9"', "1e400", "12345678901234567890"),
]
EQUALS: list[Any] = [
    *(1, 1.0, 0, 7, 0.1, 9007199254740993, -1, True, False, "true", "1", "", "d", UUID),
    *("2026-11-30", "2026-11-30T10:00:00Z", "back\\tick`", "quote'", "e\u0301"),
]


def holds(when: When, document: str) -> bool:
    target = Target("t", (Field(source="id", column="id"),), write=WriteMode("upsert", ("id",)))
    write = WriteMode("upsert", ("id",), delete_when=when)
    target = Target(target.table, target.fields, write=write)
    expression = staged_fields(target)[0].expression
    view = Viewer([expressions.parse(expression, "it")]).view(document)
    found = Expression(expression).json(view, StepBudget(len(document)))
    assert found in ("true", "false")
    return found == "true"


@pytest.mark.parametrize("equals", EQUALS, ids=repr)
def test_a_constant_is_compared_as_in_a_route(equals: Any) -> None:
    for when in (When(field="op", equals=equals), When(field="op", any_of=(equals, "other"))):
        in_route = DocumentCondition(when)
        for value in VALUES:
            document = f'{{"op": {value}}}'
            expected = in_route.holds(parse(document), None)
            assert holds(when, document) is expected, value
        assert holds(when, "{}") is False


@pytest.mark.parametrize("exists", [True, False])
def test_what_is_missing_or_null_does_not_exist(exists: bool) -> None:
    when = When(field="a.b[1]", exists=exists)
    in_route = DocumentCondition(when)
    documents = [{}, {"a": None}, {"a": {"b": [1]}}, {"a": {"b": [1, None]}}, {"a": {"b": [1, 0]}}]
    for document in map(json.dumps, documents):
        assert holds(when, document) is in_route.holds(parse(document), None), document
