"""Mapping: documents of any shape become rows of any targets, or one fault per message."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sqs2pg.errors import PermanentFault, SettingsError
from sqs2pg.mapping.columns import Column
from sqs2pg.mapping.compile import MessageMapping, compile_mapping
from sqs2pg.mapping.field_types import FIELD_TYPES
from sqs2pg.message import Message, MessageAttribute, Row, SystemAttributes
from sqs2pg.settings import Settings, load

SENT_MS = 1_683_356_889_123  # 2023-05-06T07:08:09.123Z
CANARY = "canary-4711"
PG_NAMES = {
    "text": "text",
    "integer": "int4",
    "bigint": "int8",
    "double precision": "float8",
    "boolean": "bool",
}


def settings(**tree: Any) -> Settings:
    return load(environ={}, overrides=tree, discover=False)


def mapping(**tree: Any) -> MessageMapping:
    """Compiled against columns of just the types that `migrate` would make."""
    chosen = settings(**tree)
    columns = []
    for target in chosen.targets:
        names = [
            FIELD_TYPES[f.type].sql_type if f.mask == "keep" else "text" for f in target.fields
        ]
        columns.append(
            [
                Column(field.column, PG_NAMES.get(name, name))
                for field, name in zip(target.fields, names, strict=True)
            ]
        )
    masks = [[None] * len(target.fields) for target in chosen.targets]
    return compile_mapping(chosen, columns, masks)


def message(body: Any, attributes: dict[str, str] | None = None) -> Message:
    text = body if isinstance(body, str) else json.dumps(body)
    given = {name: MessageAttribute("String", value) for name, value in (attributes or {}).items()}
    return Message("m-1", "handle", text, SystemAttributes(SENT_MS), given or None)


def result(compiled: MessageMapping, body: Any, **attributes: str) -> Row | PermanentFault:
    one = message(body, attributes)
    try:
        decoded = compiled.decode(one)
    except PermanentFault as fault:
        found = fault
    else:
        [row] = compiled.rows(["key"], [one], [decoded])
        return row
    assert found.__context__ is None  # it would keep the body alive
    return found


def cells(compiled: MessageMapping, body: Any, **attributes: str) -> list[list[str]]:
    """The lines for the first target, cells still escaped as COPY has them."""
    row = result(compiled, body, **attributes)
    assert isinstance(row, Row), (row.code, row.detail)
    assert row.text.count("\n") == row.count
    return [line.split("\t") for line in row.text.splitlines()]


def refused(compiled: MessageMapping, body: Any, **attributes: str) -> tuple[str, str]:
    fault = result(compiled, body, **attributes)
    assert isinstance(fault, PermanentFault), fault
    assert CANARY not in f"{fault!r} {vars(fault)}"
    return fault.code, fault.detail


def one_field(type_: str, **more: Any) -> MessageMapping:
    return mapping(field=[{"source": "a.v", "column": "v", "type": type_, **more}])


VALUES = [
    ("text", '"x"', "x"),
    ("text", '""', ""),
    ("integer", "7", "7"),
    ("integer", "-2147483648", "-2147483648"),
    ("integer", "7.0", "7"),
    ("integer", "7e2", "700"),
    ("integer", "-0", "0"),
    ("bigint", "9007199254740993", "9007199254740993"),
    ("bigint", "9223372036854775807", "9223372036854775807"),
    ("numeric", "1.10", "1.10"),
    ("numeric", f"0.{'1234567890' * 4}", f"0.{'1234567890' * 4}"),
    ("numeric", "123456789012345678901234567890", "123456789012345678901234567890"),
    ("numeric", "-0.00", "-0.00"),
    ("numeric", "1.5E-3", "1.5E-3"),
    ("numeric", "9" * 5_000, "9" * 5_000),
    ("double", "0.1", "0.1"),
    ("double", "1e300", "1e+300"),
    ("double", "3", "3.0"),
    ("boolean", "true", "true"),
    ("boolean", "false", "false"),
    ("date", '"2020-02-29"', "2020-02-29"),
    ("timestamptz", '"2020-02-29T23:30:00.1234567-01:00"', "2020-03-01 00:30:00.123456+00"),
    ("timestamptz", '"2016-12-31T23:59:60Z"', "2017-01-01 00:00:00+00"),
    ("timestamptz", '"0001-01-01t00:00:00z"', "0001-01-01 00:00:00+00"),
    ("uuid", '"424CDD21-063A-43A7-B91B-7CA1A833AFAE"', "424cdd21-063a-43a7-b91b-7ca1a833afae"),
    ("inet", '"199.172.111.135"', "199.172.111.135"),
    ("inet", '"2001:db8::/32"', "2001:db8::/32"),
    ("version", '"2.3"', "2003000"),
    ("jsonb", '{"k":  [1.10, -1]}', '{"k":  [1.10, -1]}'),
    ("jsonb", '[12345678901234567890123, "é"]', '[12345678901234567890123, "é"]'),
    ("jsonb", '{"a":\t[1E400,\n1] , "b\\n":"\\u00e9"}', r'{"a":\t[1E400,\n1] , "b\\n":"\\u00e9"}'),
    ("jsonb", '"x"', '"x"'),
    ("jsonb", "false", "false"),
]  # fmt: skip


@pytest.mark.parametrize(("type_", "given", "cell"), VALUES)
def test_each_type_gives_its_cell(type_: str, given: str, cell: str) -> None:
    assert cells(one_field(type_), f'{{"a": {{"v": {given}}}}}') == [[cell]]


WRONG = [
    ("text", "1", "wrong_type"),
    ("text", "{}", "wrong_type"),
    ("integer", "true", "wrong_type"),
    ("integer", '"7"', "wrong_type"),
    ("integer", "7.5", "bad_integer"),
    ("integer", "2147483648", "out_of_range"),
    ("integer", "1e9999999", "out_of_range"),
    ("bigint", "1e99999999999999999999", "out_of_range"),
    ("numeric", "1e-99999999999999999999", "out_of_range"),
    ("bigint", "9223372036854775808", "out_of_range"),
    ("bigint", "1" * 500, "out_of_range"),
    ("numeric", "false", "wrong_type"),
    ("numeric", '"1.5"', "wrong_type"),
    ("numeric", "1e131072", "out_of_range"),
    ("numeric", "1e-16384", "out_of_range"),
    ("double", "1e309", "out_of_range"),
    ("double", "1e-400", "out_of_range"),
    ("double", "[1]", "wrong_type"),
    ("boolean", "1", "wrong_type"),
    ("boolean", '"true"', "wrong_type"),
    ("date", "20200101", "wrong_type"),
    ("timestamptz", '"2020-02-29T23:30:00"', "bad_timestamp"),
    ("timestamptz", '"2020-02-29"', "bad_timestamp"),
    ("timestamptz", '"2020-02-30T00:00:00Z"', "bad_timestamp"),
    ("timestamptz", "1683356889", "wrong_type"),
    ("uuid", '"424cdd21063a43a7b91b7ca1a833afae"', "bad_uuid"),
    ("inet", '"1.2.3.4/33"', "bad_ip"),
    ("inet", '"1.2.3"', "bad_ip"),
    ("inet", '"1.2.3.4/"', "bad_ip"),
    ("jsonb", '{"a": "\\u0000"}', "nul_character"),
]


@pytest.mark.parametrize(("type_", "given", "code"), WRONG)
def test_a_value_of_the_wrong_type_is_a_fault_that_names_the_field(
    type_: str, given: str, code: str
) -> None:
    assert refused(one_field(type_), f'{{"a": {{"v": {given}}}}}') == (code, "a.v")


def test_an_escaped_backslash_before_u0000_is_no_nul() -> None:
    assert cells(one_field("jsonb"), r'{"a": {"v": "\\u0000"}}') == [[r'"\\\\u0000"']]


@pytest.mark.parametrize("type_", sorted(FIELD_TYPES))
def test_a_missing_value_is_null_or_a_fault_where_it_is_required(type_: str) -> None:
    for body in ({}, {"a": None}, {"a": {}}, {"a": {"v": None}}):
        assert cells(one_field(type_), body) == [[r"\N"]]
        assert refused(one_field(type_, required=True), body) == ("missing_field", "a.v")


def test_flattening_takes_values_from_wherever_they_are() -> None:
    fields = [
        {"source": "user.address.city", "column": "city"},
        {"source": "items[0].sku", "column": "first_sku"},
        {"source": "items[-1].price", "column": "last_price", "type": "numeric"},
        {"source": "$", "column": "all", "type": "jsonb"},
    ]
    body = '{"user":{"address":{"city":"Ulm"}},"items":[{"sku":"a"},{"price":0.10}]}'
    expected = ["Ulm", "a", "0.10", body]
    assert cells(mapping(field=fields), body) == [expected]


CONSTANTS = [
    ("text", "x", "x"),
    ("integer", 7, "7"),
    ("numeric", 1.5, "1.5"),
    ("boolean", True, "true"),
    ("date", "2020-01-02", "2020-01-02"),
    ("jsonb", "[]", "[]"),
    ("text", "message_id", "m-1"),
    ("date", "sent_date", "2023-05-06"),
    ("text", "sent_date", "2023-05-06"),
    ("timestamptz", "sent_time", "2023-05-06 07:08:09.123+00"),
    ("bigint", "sent_time", "1683356889123"),
    ("text", "attribute:tenant", "blue"),
    ("integer", "attribute:shard", "12"),
    ("integer", "record_index", "0"),
]


@pytest.mark.parametrize(("type_", "default", "cell"), CONSTANTS)
def test_a_default_stands_for_a_missing_value(type_: str, default: Any, cell: str) -> None:
    alone = mapping(field=[{"column": "v", "type": type_, "default": default}])
    assert cells(alone, {}, tenant="blue", shard="12") == [[cell]]
    if default != "record_index":
        beside = one_field(type_, default=default)
        assert cells(beside, {"a": {}}, tenant="blue", shard="12") == [[cell]]


def test_an_attribute_that_is_missing_or_of_another_type() -> None:
    field = {"column": "v", "type": "integer", "default": "attribute:shard"}
    assert cells(mapping(field=[field]), {}) == [[r"\N"]]
    assert refused(mapping(field=[field]), {}, shard=CANARY) == ("bad_number", "v")
    assert settings(field=[field]).message_attributes == ("shard",)
    assert settings().message_attributes == ()


def test_text_over_its_length_is_refused_or_cut() -> None:
    long = {"a": {"v": "abcdé\n"}}
    assert refused(one_field("text", length_max=5), long) == ("too_long", "a.v")
    assert cells(one_field("text", length_max=5, over_length="truncate"), long) == [["abcdé"]]
    assert cells(one_field("text", length_max=6, over_length="truncate"), long) == [[r"abcdé\n"]]


ORDER = {
    "id": "o1",
    "lines": [{"sku": "a", "qty": 1}, {"sku": "b", "qty": 2}, {"sku": "c", "qty": 3}],
}
LINES = {
    "explode": "lines",
    "field": [
        {"source": "id", "column": "id"},
        {"column": "line", "type": "integer", "default": "record_index"},
        {"source": "lines[].sku", "column": "sku", "required": True},
        {"source": "lines[].qty", "column": "qty", "type": "integer"},
    ],
}


def test_an_exploded_array_gives_one_row_per_element() -> None:
    compiled = mapping(**LINES)
    assert cells(compiled, ORDER) == [
        ["o1", "0", "a", "1"],
        ["o1", "1", "b", "2"],
        ["o1", "2", "c", "3"],
    ]
    nothing = result(compiled, {**ORDER, "lines": []})
    assert isinstance(nothing, Row)
    assert (nothing.text, nothing.count, nothing.dropped) == ("", 0, 0)


def test_a_bad_record_sets_the_message_aside_and_is_named() -> None:
    compiled = mapping(**LINES)
    for bad, fault in (
        ({"sku": "b", "qty": "2"}, ("wrong_type", "record 1 lines[].qty")),
        ({"qty": 2}, ("missing_field", "record 1 lines[].sku")),
        ({"sku": ""}, ("empty_field", "record 1 lines[].sku")),
        ({"sku": "b", "qty": 2**31}, ("out_of_range", "record 1 lines[].qty")),
        ("b", ("wrong_type", "record 1 lines[].sku")),
    ):
        body = {**ORDER, "lines": [ORDER["lines"][0], bad, {"sku": CANARY}]}  # type: ignore[index]
        found = refused(compiled, body)
        assert found == fault, bad
    assert refused(compiled, {"id": "o1"}) == ("missing_field", "record 0 lines")


def test_of_lines_the_one_that_is_bad_is_named() -> None:
    compiled = mapping(field=[{"source": "a", "column": "a"}], envelope={"records": "lines"})
    good = '{"a": "x"}\n\n{"a": "y"}\r\n'
    assert cells(compiled, good) == [["x"], ["y"]]
    assert refused(compiled, good + CANARY) == ("not_json", "record 2")
    assert refused(compiled, good + '{"a": 1}') == ("wrong_type", "record 2 a")
    assert refused(compiled, good + "[1]") == ("not_an_object", "record 2")


def test_too_many_records_are_too_many() -> None:
    body = {"id": "o", "lines": [{"sku": "s"}] * 100_001}
    assert refused(mapping(**LINES), body)[0] == "too_many_records"


ROUTES = [
    {
        "table": "logins",
        "when": {"field": "type", "equals": "login"},
        "field": [{"source": "user.id", "column": "user_id", "type": "integer"}],
    },
    {
        "table": "orders",
        "when": {"field": "type", "any_of": ["order", "return"]},
        "field": [{"source": "id", "column": "id"}],
    },
    {
        "table": "order_lines",
        "when": {"field": "type", "equals": "order"},
        "explode": "lines",
        "field": [{"source": "lines[].sku", "column": "sku"}],
    },
]


def parts(row: Row | PermanentFault) -> dict[int, tuple[str, int]]:
    assert isinstance(row, Row)
    return {part.target: (part.text, part.count) for part in (row, *row.also) if part.count}


def test_a_record_goes_to_every_route_whose_condition_holds() -> None:
    compiled = mapping(route=ROUTES)
    assert parts(result(compiled, {"type": "login", "user": {"id": 7}})) == {0: ("7\n", 1)}
    assert parts(result(compiled, {"type": "return", "id": "r"})) == {1: ("r\n", 1)}
    found = parts(result(compiled, {"type": "order", **ORDER}))
    assert found == {1: ("o1\n", 1), 2: ("a\nb\nc\n", 3)}


@pytest.mark.parametrize("kind", ["other", None, 1, True, ["login"], {"login": 1}, ""])
def test_a_record_that_no_route_takes_is_refused_or_dropped_and_counted(kind: Any) -> None:
    assert refused(mapping(route=ROUTES), {"type": kind}) == ("unmatched", "record 0")
    row = result(mapping(route=ROUTES, unmatched="drop"), {"type": kind})
    assert isinstance(row, Row)
    assert (row.text, row.count, row.dropped) == ("", 0, 1)


def test_a_route_without_a_condition_takes_what_is_left() -> None:
    rest = {"table": "rest", "field": [{"source": "$", "column": "body", "type": "jsonb"}]}
    compiled = mapping(route=[ROUTES[0], rest])
    assert parts(result(compiled, {"type": "login", "user": {"id": 7}})) == {0: ("7\n", 1)}
    assert parts(result(compiled, {"x": 1})) == {1: ('{"x": 1}\n', 1)}


def test_conditions_compare_json_values() -> None:
    def takes(when: dict[str, Any], body: Any) -> bool:
        route = {"table": "t", "when": when, "field": [{"source": "x", "column": "x"}]}
        return isinstance(result(mapping(route=[route]), body), Row)

    assert takes({"field": "a.n", "equals": 1}, {"a": {"n": 1}})
    assert takes({"field": "a.n", "equals": 1}, {"a": {"n": 1.0}})
    assert takes({"field": "a.n", "equals": 0.1}, {"a": {"n": 0.1}})
    assert not takes({"field": "a.n", "equals": 1}, '{"a": {"n": 1e99999999999999999999}}')
    assert not takes({"field": "a.n", "equals": 1}, {"a": {"n": True}})
    assert not takes({"field": "a.n", "equals": 1}, {"a": {"n": "1"}})
    assert takes({"field": "flag", "equals": True}, {"flag": True})
    assert not takes({"field": "flag", "equals": True}, {"flag": 1})
    assert takes({"field": "a", "exists": True}, {"a": 0})
    assert not takes({"field": "a", "exists": True}, {"a": None})
    assert takes({"field": "a", "exists": False}, {})
    assert takes({"field": "a", "exists": True, "any_of": ["x", 2]}, {"a": 2})


def test_unknown_fields_are_looked_for_where_the_mapping_looks() -> None:
    fields = [
        {"source": "user.id", "column": "id"},
        {"source": "items[0].sku", "column": "sku"},
        {"source": "extra", "column": "extra", "type": "jsonb"},
    ]
    compiled = mapping(field=fields, unknown_fields="quarantine")
    good: dict[str, Any] = {"user": {"id": "u"}, "items": [{"sku": "s"}], "extra": {CANARY: {}}}
    assert cells(compiled, good)[0][:2] == ["u", "s"]
    for bad in (
        {**good, CANARY: 1},
        {**good, "user": {"id": "u", CANARY: 1}},
        {**good, "items": [{"sku": "s"}, {CANARY: 1}]},
    ):
        assert refused(compiled, bad) == ("unknown_field", "")
    # Where a scalar is wanted an object is of the wrong type, whatever names it has.
    wrong = {**good, "user": {"id": {CANARY: 1}}}
    assert refused(compiled, wrong) == ("wrong_type", "user.id")
    assert isinstance(result(mapping(field=fields), {**good, CANARY: 1}), Row)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("", "not_json"),
        ("{", "not_json"),
        (f'{{"{CANARY}": }}', "not_json"),
        ("[]", "not_an_object"),
        ('"x"', "not_an_object"),
        ("null", "not_an_object"),
        ("[" * 100_000, "too_deep"),
        ('{"a": "\ud800"}', "bad_unicode"),
        ('{"a": {"v": NaN}}', "not_json"),
    ],
)
def test_a_value_that_is_not_a_json_document_is_a_fault(body: str, code: str) -> None:
    assert refused(one_field("text"), body) == (code, "")


def test_an_event_s_name_may_be_nested_and_a_number() -> None:
    field = [{"source": "a.b", "column": "b"}]
    compiled = mapping(field=field, ledger={"dedupe_key": "meta.id"})
    for body, name in (
        ({"meta": {"id": "e1"}}, "e1"),
        ({"meta": {"id": 2**60}}, str(2**60)),
        ({"meta": {"id": ""}}, None),
        ({"meta": None}, None),
    ):
        assert compiled.event(compiled.decode(message(body))) == name
    assert refused(compiled, {"meta": {"id": [CANARY]}}) == ("wrong_type", "meta.id")


A = {"source": "a", "column": "a"}
MASKED = {"source": "user.ip", "column": "ip", "mask": "pseudonymize"}
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"route": ROUTES, "field": [{"source": "a", "column": "a"}]}, "both [[route]] and fields"),
    ({"route": [{"table": "t"}]}, "has no fields"),
    ({"route": [ROUTES[0], ROUTES[0]]}, "two routes go to the table"),
    ({"route": [{**ROUTES[0], "when": {"field": "x"}}]}, "has no condition"),
    ({"field": [MASKED, {**MASKED, "column": "b", "mask": "keep"}]}, "kept for another"),
    ({"field": [MASKED, {"source": "user", "column": "u", "type": "jsonb"}]}, "inside 'user'"),
    ({"field": [MASKED, {"source": "$", "column": "u", "type": "jsonb"}]}, "inside '$'"),
    ({"field": [{"column": "a"}]}, "neither source nor default"),
    ({"field": [{"source": "a..b", "column": "a"}]}, "is not a path"),
    ({"field": [{"source": "a[].b", "column": "a"}]}, "not exploded"),
    ({"field": [{**A, "type": "numeric", "mask": "pseudonymize"}]}, "gives text"),
    ({"field": [{**A, "type": "date", "over_length": "truncate"}]}, "over_length"),
    ({"field": [{**A, "mask": "redact", "over_length": "truncate"}]}, "over_length"),
]  # fmt: skip


@pytest.mark.parametrize(("tree", "what"), REFUSED)
def test_an_impossible_mapping_is_refused_at_start(tree: dict[str, Any], what: str) -> None:
    with pytest.raises(SettingsError) as caught:
        settings(**tree)
    assert what in caught.value.what
    assert caught.value.hint


def test_two_fields_cannot_read_one_source_as_different_json_types() -> None:
    fields = [
        {"source": "a", "column": "a", "type": "jsonb"},
        {"source": "a", "column": "b", "type": "text"},
    ]
    with pytest.raises(SettingsError, match="two fields read 'a'"):
        mapping(field=fields)


def test_a_number_may_be_masked_as_its_text() -> None:
    chosen = settings(
        field=[{"source": "id", "column": "id", "type": "bigint", "mask": "pseudonymize"}]
    )
    columns = [[Column("id", "text")]]
    compiled = compile_mapping(chosen, columns, [[lambda text: f"<{text}>"]])
    assert cells(compiled, {"id": 2**53 + 1}) == [[f"<{2**53 + 1}>"]]
    assert cells(compiled, {"id": None}) == [[r"\N"]]
    assert refused(compiled, {"id": 2**63}) == ("out_of_range", "id")
