"""Made-up expressions on made-up documents: no exception but faults, and nothing read unnoticed.

The second is what masks rest on: a kept expression is refused by the paths that it reads, which are
known from its text. So whatever is at other paths, the result must be the same.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from random import Random
from typing import Any

import jmespath
from hypothesis import given, settings
from hypothesis import strategies as st
from jmespath.exceptions import JMESPathError

from sqs2pg.errors import PermanentFault, SettingsError
from sqs2pg.mapping.expression import Expression
from sqs2pg.mapping.expression_views import StepBudget, Viewer
from sqs2pg.settings.expressions import Syntax, parse
from tests.hypothesis_profiles import scaled
from tests.mappings import check_many

CASES = int(os.environ.get("SQS2PG_EXPRESSION_CASES", scaled(2_000, 100_000)))
DOCUMENTS = 4
"""Documents for one expression."""
_NAMES = ("a", "b", "c", "d")
_SCALARS: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2.5, 10**20, "", "x", "a", "1", "é", "x" * 50),
)
_LITERALS = ("'x'", "''", "`1`", "`null`", "`[]`", "`{}`", "`true`", '`"a"`', "`[1, 2]`")
_ONE = ("abs", "avg", "ceil", "floor", "keys", "length", "max", "min", "not_null", "reverse")
_ONE += ("sort", "sum", "to_array", "to_number", "to_string", "type", "values")


def made_expression(draw: Random, depth: int = 0) -> str:
    """Return an expression, mostly one that parses."""
    if depth > 3 or draw.random() < 0.25:
        return draw.choice((*_NAMES, *_NAMES, "@", "*", draw.choice(_LITERALS)))

    def inner() -> str:
        return made_expression(draw, depth + 1)

    one = inner()
    kind = draw.randrange(16)
    if kind < 4:
        return f"{one}.{draw.choice((*_NAMES, *_NAMES, '*'))}"
    if kind < 7:
        return one + draw.choice(("[0]", "[-1]", "[*]", "[]", "[1:]", "[::-1]", f"[?{inner()}]"))
    if kind == 7:
        return f"({one}) {draw.choice(('||', '&&', '|'))} ({inner()})"
    if kind == 8:
        return f"{one} {draw.choice(('==', '!=', '<', '>=', '|'))} {inner()}"
    if kind == 9:
        return f"!{one}"
    if kind == 10:
        return f"[{one}, {inner()}]"
    if kind == 11:
        return f"{{{draw.choice(_NAMES)}: {one}, z: {inner()}}}"
    if kind == 12:
        called = draw.choice(("map(&{}, {})", "sort_by({1}, &{0})", "max_by({1}, &{0})"))
        return called.format(one, inner())
    if kind == 13:
        called = draw.choice(("join({}, {})", "contains({}, {})", "merge({}, {})"))
        return called.format(one, inner())
    return f"{draw.choice(_ONE)}({one})"


def made_value(draw: Random, depth: int = 0) -> Any:
    if depth > 3 or draw.random() < 0.3:
        return draw.choice(_SCALARS)
    if draw.random() < 0.4:
        return [made_value(draw, depth + 1) for _ in range(draw.randrange(4))]
    names = draw.sample(_NAMES, draw.randrange(len(_NAMES) + 1))
    return {name: made_value(draw, depth + 1) for name in names}


def made_document(draw: Random) -> dict[str, Any]:
    return {name: made_value(draw) for name in _NAMES if draw.random() < 0.9}


def elsewhere(draw: Random, value: Any, syntax: Syntax, path: tuple[str, ...] = ()) -> Any:
    """Return a document with other values wherever the expression reads nothing."""
    if any(path[: len(read)] == read for read in syntax.reads):
        return value
    present = {tuple(step for step in read if isinstance(step, str)) for read in syntax.present}
    if not any(read[: len(path)] == path for read in (*syntax.reads, *present)):
        return made_value(draw) if path else made_document(draw)
    if value is None and path in present:
        return None
    if isinstance(value, dict):
        changed = {
            name: elsewhere(draw, inner, syntax, (*path, name)) for name, inner in value.items()
        }
        return {**changed, f"more{draw.randrange(9)}": made_value(draw)}
    if isinstance(value, list):
        return [elsewhere(draw, inner, syntax, path) for inner in value]
    return draw.choice([one for one in _SCALARS if one is not None or path not in present])


def result(expression: Expression, syntax: Syntax, document: Any) -> str | None:
    """Return the result as JSON, or the code of the fault."""
    view = Viewer([syntax]).view(json.dumps(document))
    try:
        return expression.json(view, StepBudget(1_000))
    except PermanentFault as fault:
        return fault.code


def of_jmespath(text: str, document: Any) -> Any:
    """Return what jmespath itself makes of it; the code of the fault where it raises."""
    try:
        return jmespath.search(text, document)
    except (JMESPathError, TypeError, ValueError, ArithmeticError):
        return "expression_failed"


def check(draw: Random, seen: Counter[str]) -> None:
    text = made_expression(draw)
    seen["messages"] += DOCUMENTS
    try:
        syntax = parse(text, "it")
    except SettingsError as error:
        seen["refused"] += bool(error.hint) * DOCUMENTS
        return
    expression = Expression(text)
    for _ in range(DOCUMENTS):
        document = made_document(draw)
        found = result(expression, syntax, document)
        assert result(expression, syntax, elsewhere(draw, document, syntax)) == found, text
        seen["failed" if found == "expression_failed" else "found"] += 1
        seen["null"] += found is None
        seen["as jmespath"] += found == "expression_failed" or json.loads(
            found or "null"
        ) == of_jmespath(text, document)


@given(st.randoms(use_true_random=False))
@settings(max_examples=scaled(20))
def test_expressions_that_shrink(draw: Random) -> None:
    check(draw, Counter())


def test_many_expressions() -> None:
    seen = check_many(check, CASES)
    print(dict(seen))
    # It cannot pass by refusing, failing or finding nothing.
    assert seen["found"] - seen["null"] > 0.1 * seen["messages"]
    assert seen["failed"] > 0.02 * seen["messages"]
    assert seen["as jmespath"] > 0.98 * (seen["found"] + seen["failed"])
