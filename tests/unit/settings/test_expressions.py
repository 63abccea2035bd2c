"""Expressions in the settings: what is refused at the start, and what each is known to read."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from sqs2pg.errors import SettingsError
from sqs2pg.settings import Settings, load
from sqs2pg.settings.expressions import parse

TABLE: dict[str, Any] = {"table": "t", "field": [{"source": "a", "column": "a"}]}


def settings(**tree: Any) -> Settings:
    return load(environ={}, overrides=tree, discover=False)


def made(expression: str, **more: Any) -> dict[str, Any]:
    return {"column": "made", "expression": expression, **more}


def refusal(**tree: Any) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        settings(**tree)
    assert caught.value.hint
    return caught.value


WRONG = [
    ("a.", "ends too early"),
    ("a[", "ends too early"),
    ("join('-', [a]", "ends too early"),
    ("a.b c", "syntax error at character 5, at 'c'"),
    ("a = 'b'", "syntax error at character 3, at '='"),
    ('a == "b', "syntax error at character 6"),
    ("a['b']", "syntax error at character 3"),
    ("joinn('-', [a])", "unknown function 'joinn' at character 1"),
    ("[a, upper(b)]", "unknown function 'upper' at character 5"),
    ("join('-')", "join() with 1 argument at character 1"),
    ("a | to_string()", "to_string() with 0 arguments at character 5"),
    ("to_string(a, b)", "to_string() with 2 arguments"),
    ("not_null()", "not_null() with 0 arguments"),
    ("abs('a')", "abs() with a wrong argument 1"),
    ("join(`1`, a)", "join() with a wrong argument 1"),
    ("map(a, b)", "map() with a wrong argument 1"),
    ("sort_by(a, b)", "sort_by() with a wrong argument 2"),
    ("length(&a)", "length() with a wrong argument 1"),
    ("&a", "an & where no function takes one"),
    ("a[::0]", "step 0"),
    ("`1e999`", "no 64-bit float"),
    ("`NaN`", "no 64-bit float"),
    ('`["\\ud800"]`', "lone surrogate"),
    ('"\\ud800".a', "lone surrogate"),
    ('{"\\ud800": a}', "lone surrogate"),
    ("attribute:tenant", "syntax error at character 10"),
    ("  ", "ends too early"),
    ("(" * 2_000 + "a" + ")" * 2_000, "nested too deeply"),
    ("!" * 150 + "a", "nested too deeply"),
    ("a[" + "1" * 4_500, "has at most 4,096|of length <= 4096"),
]


@pytest.mark.parametrize(("expression", "what"), WRONG)
def test_what_could_never_succeed_is_refused_at_the_start(expression: str, what: str) -> None:
    error = refusal(field=[made(expression)])
    assert any(each in error.what for each in what.split("|")), error.what
    assert "made" in error.what or "expression" in error.what
    routed = refusal(route=[{**TABLE, "when": {"expression": expression}}])
    assert "route[" in routed.what
    assert any(each in routed.what for each in what.split("|")), routed.what


def test_an_unknown_function_names_its_nearest() -> None:
    assert "did you mean starts_with()?" in str(refusal(field=[made("start_with(a, 'b')")]).hint)


@pytest.mark.parametrize("expression", ["attribute:a", "join('', [a, sqs:MessageId])"])
def test_what_is_beside_the_body_is_no_part_of_an_expression(expression: str) -> None:
    assert "reads the body alone" in refusal(field=[made(expression)]).hint
    assert "reads the body alone" not in refusal(field=[made("'sqs:x' b")]).hint


@pytest.mark.parametrize("expression", ["`foo`", "`10`", "a[*].b[]", "a[?b > `1`].c | [0]", "@"])
def test_what_the_aws_cli_takes_is_taken(expression: str) -> None:
    assert settings(field=[made(expression)]).fields[0].expression == expression


READS: list[tuple[str, set[str], set[str]]] = [
    ("join('-', [region, to_string(id)])", {"region", "id"}, set()),
    ("user.name", {"user.name"}, {"user.name"}),
    ("user.{a: id, b: name.first}", {"user.id", "user.name.first"}, set()),
    ("{u: user}.u.name", {"user"}, set()),
    ("a[0].b", {"a.b"}, {"a.b"}),
    ("items[*].price", {"items", "items.price"}, {"items.price"}),
    ("sum(items[].price)", {"items", "items.price"}, set()),
    ("items[?sku == 'x'].price", {"items", "items.sku", "items.price"}, {"items.price"}),
    ("items[1:].price", {"items", "items.price"}, {"items.price"}),
    ("users.*.name", {"users"}, set()),
    ("*", {""}, set()),
    ("@", {""}, {""}),
    ("to_string(@)", {""}, {""}),
    ("keys(@)", {""}, set()),
    ("values(@)[0].x", {"", "x"}, {"x"}),
    ("length(user)", {"user"}, set()),
    ("user && user.name", {"user", "user.name"}, {"user", "user.name"}),
    ("not_null(a.b, c) || d", {"a.b", "c", "d"}, {"a.b", "c", "d"}),
    ("sort_by(items, &price)[0].sku", {"items", "items.sku"}, {"items.sku"}),
    ("map(&email, people)", {"people"}, set()),
    ("merge(user, {b: c})", {"user", "c"}, {"user"}),
    ("a | b | c", {"a.b.c"}, {"a.b.c"}),
    ("!a", {"a"}, set()),
    ("a < b", {"a", "b"}, set()),
    ("'constant'", set(), set()),
]


@pytest.mark.parametrize(("expression", "reads", "gives"), READS)
def test_what_an_expression_reads_is_known_from_its_text(
    expression: str, reads: set[str], gives: set[str]
) -> None:
    syntax = parse(expression, "it")
    assert {".".join(path) for path in syntax.reads} == reads
    assert {".".join(path) for path in syntax.gives} == gives


EMAIL = {"column": "email", "source": "user.email", "mask": "pseudonymize"}
LEAKS = [
    *("user.email", "user", "@", "to_string(@)", "keys(@)", "values(@)", "*", "user.*"),
    *("join('', [user.email])", "user.email.domain", "length(user)", "user.email && 'yes'"),
    *("starts_with(user.email, 'a')", "not_null(name, user.email)", "user | email"),
    *("user.email.['x']", "user.email | {a: 'x'}", "user.email.domain.{a: 'x'}"),
    *("{a: user}.a.email", "[user][0].name", "merge(@, {a: b})", "user.email == 'a'"),
]


@pytest.mark.parametrize("expression", LEAKS)
def test_a_kept_expression_cannot_read_what_is_masked_elsewhere(expression: str) -> None:
    error = refusal(field=[EMAIL, made(expression)])
    assert error.code == "expression_reads_masked"
    assert "'made'" in error.what
    assert "'user.email'" in error.what


@pytest.mark.parametrize("expression", ["people[*].name", "people[0].email", "people[].email"])
def test_a_projection_over_the_parent_of_a_masked_value_reads_all_of_it(expression: str) -> None:
    masked = {**EMAIL, "source": "people[].email"}
    error = refusal(field=[masked, made(expression)], explode="people")
    assert error.code == "expression_reads_masked"


def test_what_another_route_masks_is_masked() -> None:
    routes = [
        {"table": "a", "when": {"expression": "user.email"}, "field": [EMAIL]},
        {"table": "b", "field": [made("user.email")]},
    ]
    assert refusal(route=routes).code == "expression_reads_masked"


def test_other_members_may_be_read_beside_a_masked_one() -> None:
    chosen = settings(field=[EMAIL, made("join('-', [user.name, region])")])
    assert [field.name for field in chosen.fields] == ["user.email", "made"]


def test_a_condition_may_read_what_is_masked() -> None:
    when = {"expression": "ends_with(user.email, '@example.org')"}
    assert settings(route=[{"table": "t", "when": when, "field": [EMAIL]}]).routed


MASKED = {"mask": "pseudonymize", "domain": "person"}


@pytest.mark.parametrize("mask", ["pseudonymize", "encrypt_deterministic", "encrypt"])
def test_a_masked_expression_names_its_domain(mask: str) -> None:
    error = refusal(field=[made("email || user.email", mask=mask)])
    assert error.code == "expression_domain"
    assert settings(field=[made("email || user.email", mask=mask, domain="person")]).fields


@pytest.mark.parametrize("source", ["email", "user", "$"])
def test_what_a_masked_expression_may_give_cannot_be_kept(source: str) -> None:
    kept = {"column": "kept", "source": source, "type": "jsonb"}
    error = refusal(field=[made("not_null(email, user.email)", **MASKED), kept])
    assert error.code == "kept_beside_mask"
    expression = source.replace("$", "@")
    error = refusal(
        field=[
            made("email || user.email", **MASKED),
            {"column": "kept", "expression": expression, "type": "jsonb"},
        ]
    )
    assert error.code == "expression_reads_masked"


def test_a_part_of_a_masked_text_may_be_kept() -> None:
    kept = {"column": "region", "source": "region"}
    assert settings(field=[made("join('-', [region, id])", **MASKED), kept]).fields


def test_an_expression_cannot_read_what_is_dropped() -> None:
    dropped = {"source": "user.note", "mask": "drop"}
    for expression in ("user.note", "user.note.text", "to_string(user.note)", "user", "@", "*"):
        error = refusal(field=[dropped, made(expression)])
        assert error.code == "dropped_and_mapped"
        assert error.what.startswith("field 'user.note' is dropped")
    # A mask of the whole shows nothing of it.
    assert settings(field=[dropped, made("to_string(user)", **MASKED)]).fields
    assert settings(field=[dropped, made("user.name")]).fields


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"field": [made("a", source="b")]}, "a source and an expression"),
    ({"field": [{"expression": "a", "mask": "drop"}]}, "no other key than source"),
    ({"field": [made("a", default="record_index")]}, "record_index"),
    ({"field": [made("a", required=True, default="x")]}, "required and has a default"),
    ({"field": [{"expression": "a"}]}, "missing required field `column`"),
    ({"field": [made("detail.id")], "envelope": {"layers": ["auto"]}}, "envelope that layers"),
    ({"vault": {"enabled": True, "subject": "made"}, "field": [made("a")]}, "source of any field"),
    ({"route": [{**TABLE, "when": {}}]}, "neither field nor expression"),
    ({"route": [{**TABLE, "when": {"equals": 1}}]}, "neither field nor expression"),
    ({"route": [{**TABLE, "when": {"expression": "a", "field": "b"}}]}, "other conditions"),
    ({"route": [{**TABLE, "when": {"field": "a[].b", "equals": 1}}]}, "of each element"),
    ({"route": [TABLE, {"drop": True, "when": {"field": "a[]", "equals": 1}}]}, "of each element"),
    ({"route": [{**TABLE, "when": {"field": "a..b", "equals": 1}}]}, "not a path to a value"),
    ({"route": [{**TABLE, "when": {"expression": "a", "exists": True}}]}, "other conditions"),
    ({"route": [{"field": TABLE["field"]}]}, "missing required field `table`"),
    ({"route": [TABLE, {"drop": True, "table": "u"}]}, "no other key than `when`"),
    ({"route": [TABLE, {"drop": True, "field": TABLE["field"]}]}, "no other key than `when`"),
    ({"route": [TABLE, {"drop": True, "explode": "a"}]}, "no other key than `when`"),
    ({"route": [TABLE, {"drop": True}]}, "drops what no other route takes"),
    ({"route": [{"drop": True}]}, "every record is dropped"),
    ({"route": [{"drop": True, "when": {"expression": "a"}}, {"drop": True}]}, "every record"),
]  # fmt: skip


@pytest.mark.parametrize(("tree", "what"), REFUSED)
def test_what_does_not_fit_together_is_refused(tree: dict[str, Any], what: str) -> None:
    assert what in refusal(**tree).what


def test_a_filter_may_stand_before_fields_without_routes() -> None:
    chosen = settings(
        field=TABLE["field"], route=[{"drop": True, "when": {"expression": "level == 'debug'"}}]
    )
    assert not chosen.routed
    assert [target.table for target in chosen.targets] == ["user_logins"]
    assert [one.route for one in chosen.filters] == ["route[0]"]


def test_a_route_that_drops_the_rest_is_unmatched_drop() -> None:
    when = {"field": "a", "exists": True}
    chosen = settings(route=[{**TABLE, "when": when}, {"drop": True}])
    assert chosen.drops_unmatched
    assert chosen.filters == ()


def test_the_schema_knows_which_keys_stand_alone() -> None:
    schema = msgspec.json.schema(Settings)["$defs"]
    assert "expression" in schema["Field"]["properties"]
    route = schema["Settings"]["properties"]["route"]["items"]
    assert route["else"] == {"required": ["table"]}
    assert '{"required":["expression"]}' in msgspec.json.encode(schema).decode()
