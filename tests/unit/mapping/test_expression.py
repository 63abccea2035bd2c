"""Expressions on documents: JSON's values, and bounds that no document gets past."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from sqs2pg.errors import PermanentFault
from sqs2pg.mapping.expression import Expression
from sqs2pg.mapping.expression_views import STEPS_LEAST, Sight, StepBudget, Viewer
from sqs2pg.settings.expressions import parse

CANARY = "canary-4711"


def evaluated(expression: str, document: Any, budget: StepBudget | None = None) -> Any:
    text = document if isinstance(document, str) else json.dumps(document)
    view = Viewer([parse(expression, "it")]).view(text)
    found = Expression(expression).json(view, budget or StepBudget(0))
    return None if found is None else json.loads(found)


def refusal_of(expression: str, document: Any, budget: StepBudget | None = None) -> str | None:
    try:
        evaluated(expression, document, budget)
    except PermanentFault as fault:
        return checked(fault)
    return None


def refused(expression: str, document: Any) -> str:
    with pytest.raises(PermanentFault) as caught:
        evaluated(expression, document)
    return checked(caught.value)


def checked(fault: PermanentFault) -> str:
    assert fault.__context__ is None  # it would keep values
    assert CANARY not in f"{fault!r} {vars(fault)}"
    return fault.code


VALUES: list[tuple[str, Any, Any]] = [
    ("join('-', [region, to_string(id)])", {"region": "eu", "id": 7}, "eu-7"),
    ("id", '{"id": 9007199254740993}', 9007199254740993),
    ("to_string(id)", '{"id": 12345678901234567890123}', "12345678901234567890123"),
    ("sum([id, `1`])", '{"id": 9007199254740993}', 9007199254740994),
    ("id == `9007199254740992`", '{"id": 9007199254740993}', False),
    ("price", '{"price": 0.10}', 0.1),
    ("to_string(price)", '{"price": 1.50}', "1.5"),
    ("to_string(price)", '{"price": 2.0}', "2.0"),
    ("a", '{"a": 1, "a": 2}', 2),
    ("a", "{}", None),
    ("a.b", '{"a": null}', None),
    ("a.b", '{"a": "text"}', None),
    ("a == `1`", {"a": True}, False),
    ("a == `true`", {"a": 1}, False),
    ("a == `[1]`", {"a": [True]}, False),
    ("a == `1`", {"a": 1.0}, True),
    ("a == b", {"a": {"x": [1, 2]}, "b": {"x": [1, 2]}}, True),
    ("a != b", {"a": {"x": [1, 2]}, "b": {"x": [1, 2, 3]}}, True),
    ("contains(a, `1`)", {"a": [True]}, False),
    ("contains(a, `1`)", {"a": [1.0]}, True),
    ("contains(a, 'b')", {"a": "abc"}, True),
    ("a > b", {"a": None, "b": 1}, None),
    ("to_number(a)", {"a": "nan"}, None),
    ("to_number(a)", {"a": "1_000"}, None),
    ("to_number(a)", {"a": "٣"}, None),
    ("to_number(a)", {"a": "1" * 2_000}, None),
    ("to_number(a)", {"a": "12"}, 12),
    ("to_number(a)", {"a": "1.5e3"}, 1500.0),
    ("to_number(a)", {"a": True}, None),
    ("to_string(a)", {"a": {"é": [1, None, True]}}, '{"é":[1,null,true]}'),
    ("to_string(a)", {"a": None}, "null"),
    ("to_string(a)", {"a": "text"}, "text"),
    ("reverse(a)", {"a": "abc"}, "cba"),
    ("reverse(a)", {"a": [1, 2]}, [2, 1]),
    ("a > `1`", '{"a": 1e400}', True),
    ("b", '{"a": 1e400, "b": 1}', 1),
    ("avg(a)", {"a": []}, None),
    ("avg(a)", {"a": [1, 2]}, 1.5),
    ("sort(a)", {"a": ["b", "a"]}, ["a", "b"]),
    ("max(a)", {"a": [1, 2.5]}, 2.5),
    ("max_by(a, &n).n", {"a": [{"n": "x"}, {"n": "y"}]}, "y"),
    ("merge(a, b)", {"a": {"x": 1, "y": 1}, "b": {"y": 2}}, {"x": 1, "y": 2}),
    ("to_number(a)", {"a": " 1"}, None),
    ("to_number(a)", '{"a": "9007199254740993"}', 9007199254740993),
    ("a > b", '{"a": 9007199254740993, "b": 9007199254740992.0}', True),
    ("[a < 'b', 'a' < 'b']", {"a": "B"}, [True, True]),
    ("a[99999999999999999999999]", {"a": [1]}, None),
    ("a[-1]", {"a": [1, 2]}, 2),
    ("!a", {"a": 0}, False),
    ("map(&b, a)", {"a": [{"b": 1}, {}]}, [1, None]),
    ("a[*].b", {"a": [{"b": 1}, {}]}, [1]),
    ("a || b", {"a": 0, "b": 1}, 0),
    ("a || b", {"a": "", "b": 1}, 1),
    ("items[?price > `10`].sku | [0]", {"items": [{"price": 11, "sku": "x"}]}, "x"),
    ("sort_by(items, &n)[*].n", {"items": [{"n": 2}, {"n": 1}]}, [1, 2]),
    ("items[].tags[]", {"items": [{"tags": [1]}, {"tags": [2, 3]}]}, [1, 2, 3]),
    ("length(@)", {"a": 1, "b": 2}, 2),
    ("a[::-1]", {"a": [1, 2, 3]}, [3, 2, 1]),
    ('"a\\"b"', {'a"b': 1}, 1),
    ("`foo`", {}, "foo"),
]


@pytest.mark.parametrize(("expression", "document", "result"), VALUES)
def test_a_value_is_that_of_json(expression: str, document: Any, result: Any) -> None:
    found = evaluated(expression, document)
    assert found == result
    assert type(found) is type(result)


FAILED: list[tuple[str, Any]] = [
    ("join('-', [a, b])", {"a": CANARY}),
    ("length(a)", {"b": CANARY}),
    ("starts_with(a, 'x')", {"a": 1}),
    ("sum(a)", {"a": [1, CANARY]}),
    ("a > `1`", {"a": CANARY}),
    ("contains(a, `1`)", {"a": CANARY}),
    ("sort_by(a, &n)", {"a": [{"n": 1}, {"n": CANARY}]}),
    ("max_by(a, &n)", {"a": [{"n": None}]}),
    ("keys(a)", {"a": [CANARY]}),
    ("floor(a)", '{"a": 1e400}'),
    ("sort(a)", {"a": [1, CANARY]}),
    ("sort(a)", {"a": [CANARY, None]}),
    ("sort(a)", {"a": [[1], [2]]}),
    ("max(a)", {"a": [CANARY, 1]}),
    ("min_by(a, &n)", {"a": [{"n": True}]}),
    ("merge(a, b)", {"a": {}, "b": [CANARY[:2]]}),
    ("avg(a)", '{"a": [1%s]}' % ("0" * 400)),
    ("sum(a)", '{"a": [1%s, 0.5]}' % ("0" * 400)),
    ("abs(a)", {"a": True}),
    ("sum(a)", {"a": [True]}),
    ("reverse(a)", {"a": {"b": CANARY}}),
    ("join(a, b)", {"a": None, "b": [CANARY]}),
    ("contains(a, 'b')", {"a": {"b": CANARY}}),
    ("map(&length(@), a)", {"a": [1]}),
]


@pytest.mark.parametrize(("expression", "document"), FAILED)
def test_a_value_that_a_function_does_not_take_is_a_fault(expression: str, document: Any) -> None:
    assert refused(expression, document) == "expression_failed"


@pytest.mark.parametrize(
    "expression", ["a", "to_string(a)", "[a]", "{x: {y: [a]}}", "to_string([a])"]
)
@pytest.mark.parametrize("number", ["1e400", "-1e400", "1" * 5_000])
def test_a_number_past_64_bits_is_not_written(expression: str, number: str) -> None:
    assert refused(expression, f'{{"a": {number}}}') == "out_of_range"


TRUTH = [
    *[(value, False) for value in (None, False, "", [], {})],
    *[(value, True) for value in (True, 0, 0.0, "0", "false", [None], {"a": None})],
]


@pytest.mark.parametrize(("value", "true"), TRUTH)
def test_a_condition_has_the_truth_of_jmespath(value: Any, true: bool) -> None:
    assert Expression("a").holds({"a": value}, StepBudget(0)) is true


THOUSAND = list(range(1_000))
TEN_MB = "x" * 10_000_000
COSTLY: list[tuple[str, Any]] = [
    ("a[].a[].a[].a", {"a": [{"a": [{"a": [{"a": THOUSAND}] * 10}] * 10}] * 3}),
    ("a[?contains(b, `-1`)]", {"a": [{"b": THOUSAND}] * 300}),
    ("a == b", {"a": [THOUSAND] * 300, "b": [THOUSAND] * 300}),
    ("[a,a,a,a] | [@,@,@,@] | [@,@,@,@] | [@,@,@,@] | [@,@,@,@] | [@,@,@,@]", {"a": THOUSAND}),
    ("to_string([a,a,a,a] | [@,@,@,@] | [@,@,@,@] | [@,@,@,@])", {"a": ["x" * 5_000]}),
    ("join(a, b)", {"a": "x" * 10_000, "b": ["y"] * 10_000}),
    ("reverse(a)", {"a": TEN_MB}),
    ("a", {"a": TEN_MB}),
    ("@", {"a": TEN_MB}),
    ("to_string(@)", {"a": ["x" * 1_000] * 10_000}),
    ("a[?@ == 'y'] | [0]", {"a": [TEN_MB[:100]] * 60_000}),
    ("a[*].b[]", {"a": [{"b": THOUSAND}] * 300}),
    ("map(&join('', [@, @, @, @]), a)", {"a": ["x" * 100_000] * 100}),
    ("|".join(["[@,@]"] * 40), {"a": 1}),
    ("|".join(["[@,@][]"] * 40), {"a": [1]}),
]


@pytest.mark.parametrize(
    ("expression", "document"), COSTLY, ids=lambda one: one[:40] if isinstance(one, str) else None
)
def test_what_would_cost_too_much_is_stopped_in_time(expression: str, document: Any) -> None:
    view = Viewer([parse(expression, "it")]).view(json.dumps(document))
    compiled = Expression(expression)
    began = time.process_time()
    with pytest.raises(PermanentFault) as caught:
        compiled.json(view, StepBudget(0))
    assert caught.value.code == "expression_too_costly"
    assert time.process_time() - began < 10  # some tenths of a second on an idle machine


def test_a_result_as_deep_as_a_document_may_be_is_written_and_a_deeper_one_is_not() -> None:
    deep: Any = 1
    for _ in range(255):
        deep = [deep]
    assert evaluated("a", {"a": deep}) == deep
    assert evaluated("[a]", {"a": deep}) == [deep]
    assert refused("[[a]]", {"a": deep}) == "expression_too_costly"
    assert evaluated("a == b", {"a": deep, "b": deep})


def test_the_expressions_of_a_message_share_its_steps() -> None:
    budget = StepBudget(0)
    document = {"a": THOUSAND}
    count = 0
    while refusal_of("a[*]", document, budget) is None:
        count += 1
    assert 0.2 < count * len(THOUSAND) / STEPS_LEAST < 1


def test_a_message_may_have_many_records_with_an_expression_each() -> None:
    budget = StepBudget(0)
    expression = Expression("join('/', [shop, items[0].id, to_string(items[0].n)])")
    record = {"shop": "s", "items": [{"id": "a", "n": 1}]}
    assert {expression.string(record, budget) for _ in range(100)} == {"s/a/1"}
    assert budget.left == STEPS_LEAST  # none was taken, so `RECORDS_MAX` records take none


def test_what_an_expression_sees_hides_in_logs() -> None:
    sight = Sight(Viewer([parse("@", "it")]), json.dumps({"a": CANARY}), StepBudget(0))
    assert sight.document == {"a": CANARY}
    assert CANARY not in repr(sight)
