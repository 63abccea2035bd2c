"""Expressions in a mapping: values of fields, conditions of routes, filters, and what is drift."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from sqs2pg.errors import PermanentFault
from sqs2pg.mapping import compile as compiling
from sqs2pg.mapping.columns import column_for
from sqs2pg.mapping.compile import MessageMapping, compile_mapping
from sqs2pg.mapping.document_types import NoTypesError
from sqs2pg.mapping.unknown_members import UnknownMembers
from sqs2pg.message import Message, SystemAttributes
from sqs2pg.settings import Settings, load
from tests.native import masks_of

CANARY = "canary-4711"


def settings(**tree: Any) -> Settings:
    return load(environ={}, overrides=tree, discover=False)


def message(body: Any) -> Message:
    text = body if isinstance(body, str) else json.dumps(body)
    return Message("m-1", "handle", text, SystemAttributes(1_700_000_000_000))


def compiled(chosen: Settings) -> MessageMapping:
    columns = [[column_for(field) for field in target.fields] for target in chosen.targets]
    return compile_mapping(chosen, columns, masks_of(chosen))


def lines_of(mapping: MessageMapping, body: Any) -> dict[int, list[str]] | str:
    """Return the lines of each target, or the fault of a body."""
    [decoded] = mapping.decode_all([message(body)])
    found: Any = decoded
    if not isinstance(found, PermanentFault):
        [found] = mapping.rows(["k"], [message(body)], [found])
    if isinstance(found, PermanentFault):
        assert found.__context__ is None
        assert CANARY not in f"{found!r} {vars(found)}"
        return f"{found.code} {found.detail}".rstrip()
    parts = [found, *found.also]
    return {part.target: part.text.splitlines() for part in parts if part.text}


def made(chosen: Settings, body: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return what both readers make of a body, after checking that they agree."""
    usual = lines_of(compiled(chosen), body)
    with monkeypatch.context() as patch:

        def no_types(_: Settings) -> None:
            raise NoTypesError

        patch.setattr(compiling, "TypedReader", no_types)
        assert lines_of(compiled(chosen), body) == usual
    return usual


ID = {"source": "id", "column": "id"}


def field(expression: str, **more: Any) -> dict[str, Any]:
    return {"column": "made", "expression": expression, **more}


IN_FIELDS: list[tuple[dict[str, Any], Any, str]] = [
    (field("join('-', [a, to_string(b)])"), {"a": "eu", "b": 7}, "eu-7"),
    (field("join('-', [a, b])"), {"a": "eu", "b": 4711}, "!expression_failed made"),
    (field("a.b"), {"a": {}}, "\\N"),
    (field("a.b", required=True), {"a": {}}, "!missing_field made"),
    (field("a", required=True), {"a": ""}, "!empty_field made"),
    (field("a", default="none"), {"a": None}, "none"),
    (field("a"), {"a": 7}, "!wrong_type made"),
    (field("to_string(a)"), {"a": 7}, "7"),
    (field("length(a)", type="integer"), {"a": [1, 2]}, "2"),
    (field("length(a)", type="integer"), {}, "!expression_failed made"),
    (field("avg(a)", type="integer"), {"a": [1, 2]}, "!bad_integer made"),
    (field("avg(a)", type="double"), {"a": [1, 2]}, "1.5"),
    (field("sum(a)", type="bigint"), '{"a": [9007199254740992, 1]}', "9007199254740993"),
    (field("a", type="numeric"), '{"a": 0.1234567890123456789}', "0.12345678901234568"),
    (field("a", type="numeric"), '{"a": 1e400}', "!out_of_range made"),
    (field("a == `true`", type="boolean"), {"a": True}, "true"),
    (field("a == `1`", type="boolean"), {"a": True}, "false"),
    (field("a > `1`", type="boolean"), {"a": "x"}, "!expression_failed made"),
    (field("a > `1`", type="boolean"), {}, "\\N"),
    (field("a[?b > `1`].c", type="text[]"), {"a": [{"b": 2, "c": "x"}, {"b": 1}]}, "{x}"),
    (field("{x: a}", type="jsonb"), {"a": ["é"]}, '{"x":["é"]}'),
    (field("a", trim=True, lower=True, map={"on": "1"}, otherwise="null"), {"a": " ON "}, "1"),
    (field("a", trim=True, lower=True, map={"on": "1"}, otherwise="null"), {"a": "x"}, "\\N"),
    (field("a || b", type="timestamptz", format="epoch_s"), {"b": 0}, "1970-01-01 00:00:00+00"),
    (field("a", type="integer", **{"from": "text"}), {"a": "7"}, "7"),
    (field("a", empty="null", default="d"), {"a": ""}, "d"),
    (field("a", length_max=2), {"a": "abc"}, "!too_long made"),
    (field("a", length_max=2, over_length="truncate"), {"a": "abc"}, "ab"),
    (field("a"), {"a": "tab\t"}, "tab\\t"),
    (field("a"), '{"a": "\\u0000"}', "!nul_character made"),
    (field("a", mask="nullify"), {"a": CANARY}, "\\N"),
]


@pytest.mark.parametrize(("one", "body", "cell"), IN_FIELDS)
def test_a_field_takes_the_result_as_it_takes_a_value_of_the_document(
    one: dict[str, Any], body: Any, cell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = made(settings(field=[one]), body, monkeypatch)
    assert found == (cell[1:] if cell.startswith("!") else {0: [cell]})


def test_a_mask_of_an_expression_joins_with_others_of_its_domain(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mask = {"mask": "pseudonymize", "domain": "person"}
    chosen = settings(
        field=[
            field("not_null(email, user.email)", lower=True, **mask),
            {"column": "other", "source": "contact", **mask},
        ]
    )
    found = made(chosen, {"user": {"email": "ADA"}, "contact": "ada"}, monkeypatch)
    [[first, second]] = [line.split("\t") for line in found[0]]
    assert first == second
    assert first.startswith("v1_")


def test_an_expression_sees_the_document_and_of_an_exploded_array_the_records_own_element(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chosen = settings(
        explode="orders[].lines",
        field=[
            field("join('/', [shop, orders[0].id, orders[0].lines[0].sku])"),
            {"column": "count", "expression": "length(orders[0].lines)", "type": "integer"},
            {"column": "sku", "source": "orders[].lines[].sku"},
        ],
    )
    orders = [{"id": "1", "lines": [{"sku": "a"}, {"sku": "b"}]}, {"id": "2", "lines": [{}]}]
    body = {"shop": "s", "orders": orders[:1]}
    assert made(chosen, body, monkeypatch) == {0: ["s/1/a\t1\ta", "s/1/b\t1\tb"]}
    body = {"shop": "s", "orders": orders}
    assert made(chosen, body, monkeypatch) == "expression_failed record 2 made"
    assert made(chosen, {"shop": "s", "orders": []}, monkeypatch) == {}


DEBUG = {"drop": True, "when": {"expression": "level == 'debug'"}}


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ({"id": "1"}, {0: ["1"]}),
        ({"id": "1", "level": "info"}, {0: ["1"]}),
        ({"id": "1", "level": "debug"}, {}),
        ({"id": 7, "level": "debug"}, {}),  # whatever is wrong with it
        ({"id": 7}, "wrong_type id"),
    ],
)
def test_a_filter_drops_what_it_takes(
    body: Any, found: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for unknown in ("drop", "quarantine"):
        chosen = settings(route=[DEBUG], field=[ID], unknown_fields=unknown)
        assert made(chosen, body, monkeypatch) == found


def test_a_filter_may_have_the_conditions_of_any_route(monkeypatch: pytest.MonkeyPatch) -> None:
    when = {"field": "level", "any_of": ["debug", "trace"]}
    chosen = settings(route=[{"drop": True, "when": when}], field=[ID])
    assert made(chosen, {"id": "1", "level": "trace"}, monkeypatch) == {}
    assert made(chosen, {"id": "1", "level": ["trace"]}, monkeypatch) == {0: ["1"]}


def test_what_a_filter_takes_may_have_unknown_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = settings(route=[DEBUG], field=[ID], unknown_fields="quarantine")
    assert made(chosen, {"level": "debug", "x": 1}, monkeypatch) == {}
    assert made(chosen, {"level": "info", "x": 1}, monkeypatch) == "unknown_field"


def route(table: str, expression: str = "", **more: Any) -> dict[str, Any]:
    when = {"when": {"expression": expression}} if expression else {}
    return {"table": table, "field": [ID], **when, **more}


ROUTES = [
    route("large", "size > `10`"),
    route("mail", "contains(name, '@')"),
    DEBUG,
    route("rest"),
]


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ({"id": "1", "size": 11, "name": "x"}, {0: ["1"]}),
        ({"id": "1", "size": 11, "name": "a@b"}, {0: ["1"], 1: ["1"]}),
        ({"id": "1", "size": 11, "name": "a@b", "level": "debug"}, {}),
        ({"id": "1", "name": "x"}, {2: ["1"]}),  # null is not larger
        ({"id": "1", "size": None, "name": []}, {2: ["1"]}),
        ({"id": "1", "size": CANARY, "name": "x"}, "condition_failed route[0]"),
        ({"id": "1", "size": 1}, "condition_failed route[1]"),
        ({"id": "1", "size": 1, "name": 7}, "condition_failed route[1]"),
        ({"id": "1", "size": CANARY, "level": "debug"}, {}),
    ],
)
def test_a_condition_holds_or_not_or_fails(
    body: Any, found: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert made(settings(route=ROUTES), body, monkeypatch) == found


def test_a_filter_that_fails_drops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    filters = [{"drop": True, "when": {"expression": "starts_with(path, '/health')"}}]
    chosen = settings(route=filters, field=[ID])
    assert made(chosen, {"id": "1", "path": "/healthz"}, monkeypatch) == {}
    assert made(chosen, {"id": "1", "path": "/x"}, monkeypatch) == {0: ["1"]}
    for body in ({"id": "1"}, {"id": "1", "path": 7}):
        assert made(chosen, body, monkeypatch) == "condition_failed route[0]"
    lines = settings(route=filters, field=[ID], envelope={"records": "array"})
    body = [{"id": "1", "path": "/"}, {"id": "2", "path": None}]
    assert made(lines, body, monkeypatch) == "condition_failed record 1 route[0]"


TRUTH = [
    *[(value, False) for value in (None, False, "", [], {})],
    *[(value, True) for value in (True, 0, 0.0, "0", "false", [None], {"a": None})],
]


@pytest.mark.parametrize(("value", "true"), TRUTH)
def test_a_result_that_is_no_boolean_has_the_truth_of_jmespath(
    value: Any, true: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = settings(route=[{"drop": True, "when": {"expression": "a"}}], field=[ID])
    assert made(chosen, {"id": "1", "a": value}, monkeypatch) == ({} if true else {0: ["1"]})


def test_records_that_are_dropped_are_counted() -> None:
    chosen = settings(route=[DEBUG], field=[ID], envelope={"records": "array"})
    levels = ["debug", "info", "debug"]
    decoded = compiled(chosen).decode(message([{"id": "1", "level": one} for one in levels]))
    assert decoded.dropped == 2
    [row] = compiled(chosen).rows(["k"], [message([])], [decoded])
    assert not isinstance(row, PermanentFault)
    assert (row.dropped, row.text) == (2, "1\n")


def test_the_expressions_of_all_records_share_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = settings(explode="items", field=[field("length(a[].b[])", type="integer")])
    body = {"items": [1], "a": [{"b": list(range(200))}] * 100}
    assert made(chosen, body, monkeypatch) == {0: ["20000"]}
    found = made(chosen, {**body, "items": [1] * 20}, monkeypatch)
    assert found.startswith("expression_too_costly record ")
    # As large as a document may be, and no more than a few times through it.
    body = {"items": [1], "a": [{"b": list(range(200))}] * 600}
    assert made(chosen, body, monkeypatch) == {0: ["120000"]}


def test_what_failed_is_counted_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else each record of a message could take as many steps as all of them may."""
    chosen = settings(
        explode="items",
        field=[
            field("sum(big[].b[])", type="integer"),
            {"column": "id", "source": "items[].id"},
        ],
    )
    big = [{"b": list(range(200))}] * 50
    for last in ([0], ["no number"]):
        body = {"items": [{"id": "1"}] * 2_000, "big": [*big, {"b": last}]}
        began = time.process_time()
        assert made(chosen, body, monkeypatch).startswith(("expression_too", "expression_failed"))
        assert time.process_time() - began < 20  # a second or two where nobody else is


def unknown(chosen: Settings, body: Any) -> dict[tuple[str, str], int]:
    """Return what is counted as drift: by the mapping, which must find what the reference does."""
    [decoded] = compiled(chosen).decode_all([message(body)])
    assert not isinstance(decoded, PermanentFault)
    found = UnknownMembers(chosen).find([json.dumps(body)])
    assert [one.members for one in decoded.unknown] == [one.members for one in found]
    return {tuple(member): 1 for one in found for member in one.members}  # type: ignore[misc]


def test_what_an_expression_reads_is_no_drift() -> None:
    body = {
        "id": "1",
        "user": {"name": "x", "age": 7},
        "items": [{"sku": "a", "qty": 1}],
        "doc": {"any": {"thing": 1}},
        "level": "info",
        "new": 1,
    }
    some = settings(
        field=[ID, field("join('-', [user.name, items[0].sku])")],
        route=[DEBUG, {"drop": True, "when": {"expression": "doc.x && to_string(doc) == 'x'"}}],
    )
    assert unknown(some, body) == {
        ("user.age", "number"): 1,
        ("items[].qty", "number"): 1,
        ("new", "number"): 1,
    }
    whole = settings(field=[ID, field("to_string(@)")])
    assert unknown(whole, body) == {}
    users = settings(field=[ID, field("keys(user)[0]")])
    assert ("user.age", "number") not in unknown(users, body)
    assert ("new", "number") in unknown(users, body)


@pytest.mark.parametrize(
    ("expression", "body", "found"),
    [
        ("user.name", {"user": {"name": "x"}}, {0: ["\\N\tx"]}),
        ("user.name", {"user": {"name": "x", "age": 1}}, "unknown_field"),
        ("user.name", {"user": {"name": {"any": "x"}}}, "wrong_type made"),
        ("user.['x'] | [0]", {"user": {}}, {0: ["\\N\tx"]}),
        ("user.['x'] | [0]", {"user": None}, {0: ["\\N\t\\N"]}),
        ("user.['x'] | [0]", {"user": {"age": 1}}, "unknown_field"),
        ("user.[name] | [0]", {"user": {"name": "x"}}, {0: ["\\N\tx"]}),
        ("user.[name] | [0]", {"user": {"name": "x", "age": 1}}, "unknown_field"),
        ("items[0].sku", {"items": [{"sku": "x"}]}, {0: ["\\N\tx"]}),
        ("items[0].sku", {"items": [{"sku": "x", "qty": 1}]}, "unknown_field"),
        ("type(user)", {"user": {"name": "x", "age": 1}}, {0: ["\\N\tobject"]}),
        ("type(@)", {"anything": {"goes": 1}}, {0: ["\\N\tobject"]}),
    ],
)
def test_names_that_an_expression_reads_are_known(
    expression: str, body: Any, found: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = settings(field=[ID, field(expression)], unknown_fields="quarantine")
    assert made(chosen, body, monkeypatch) == found
