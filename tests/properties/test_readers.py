"""Both readers of JSON find the same, whatever the mapping: the usual one only accepts."""

from __future__ import annotations

import os
from collections import Counter
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sqs2pg.errors import PermanentFault, SettingsError
from sqs2pg.mapping import compile as compiling
from sqs2pg.mapping.compile import MessageMapping, compile_mapping
from sqs2pg.mapping.document_types import NoTypesError
from sqs2pg.message import Message
from sqs2pg.settings import Field, Settings, When
from sqs2pg.settings.routes import Route
from tests.hypothesis_profiles import scaled
from tests.mappings import MadeUp, check_many
from tests.native import masks_of

CASES = int(os.environ.get("SQS2PG_READER_CASES", scaled(6_000, 60_000)))
MESSAGES = 12
"""Messages for one mapping."""
_EVENTS = ("id", "kind", "a.id", "a", "meta.id")
_DROPPED = ("more", "other", "a.more", "items[].more", "a[0].b", "c")


_EXPRESSIONS = (
    *("a", "a.b", "id", "kind", "items[0].id", "c[0].items[0].a", "not_null(a.b, id, kind)"),
    *(
        "to_string(a)",
        "to_string(@)",
        "length(keys(@))",
        "type(items)",
        "items[].id",
        "@",
        "a || b",
    ),
    *("join('-', [kind, to_string(id)])", "sum(items[].id)", "to_number(id)", "items[?id].a | [0]"),
    *("sort_by(items, &id)[0].a", "contains(kind, 'x')", "id > `5`", "a == b", "'\xe9'"),
    *("{a: a, b: *}", "merge(a, c)", "max(values(a))"),
)


def no_types(_settings: Settings) -> None:
    """Stands for the usual reader, where there shall be none."""
    raise NoTypesError


def changed(draw: Random, given: Settings) -> Settings:
    """Add what the generator of mappings leaves out: the event's name, and dropped fields."""
    if draw.random() < 0.2:
        ledger = msgspec.structs.replace(given.ledger, dedupe_key=draw.choice(_EVENTS))
        given = msgspec.structs.replace(given, ledger=ledger)
    if draw.random() < 0.2 and not given.route:
        dropped = [Field(source=name, mask="drop") for name in draw.sample(_DROPPED, 2)]
        given = msgspec.structs.replace(given, field=(*given.field, *dropped))
    return with_expressions(draw, given) if draw.random() < 0.25 else given


def with_expressions(draw: Random, given: Settings) -> Settings:
    """Put expressions in the place of sources and conditions, and add filters."""

    def made(fields: tuple[Field, ...]) -> tuple[Field, ...]:
        return tuple(
            msgspec.structs.replace(field, source="", expression=draw.choice(_EXPRESSIONS))
            if field.mask != "drop" and draw.random() < 0.4
            else field
            for field in fields
        )

    routes = [
        msgspec.structs.replace(
            route,
            field=made(route.field),
            when=When(expression=draw.choice(_EXPRESSIONS))
            if route.when and draw.random() < 0.5
            else route.when,
        )
        for route in given.route
    ]
    if draw.random() < 0.5:
        when = When(expression=draw.choice(_EXPRESSIONS))
        if draw.random() < 0.5:
            when = When(field=draw.choice(("kind", "a.kind")), any_of=("x", 7))
        routes.append(Route(drop=True, when=when))
    return msgspec.structs.replace(given, field=made(given.field), route=tuple(routes))


def outcomes(mapping: MessageMapping, messages: list[Message]) -> list[Any]:
    """Return what a mapping makes of each message: its fault, or rows, event and dropped fields."""
    decoded = mapping.decode_all(messages)
    good = [i for i, one in enumerate(decoded) if not isinstance(one, PermanentFault)]
    units: list[Any] = [decoded[i] for i in good]
    rows = mapping.rows([str(i) for i in good], [messages[i] for i in good], units)
    found: list[Any] = list(decoded)
    for i, unit, row in zip(good, units, rows, strict=True):
        found[i] = (
            row
            if isinstance(row, PermanentFault)
            else (msgspec.to_builtins(row), mapping.event(unit), sorted(unit.dropped_fields))
        )
    for fault in found:
        if isinstance(fault, PermanentFault):
            assert fault.__context__ is None
            assert fault.__traceback__ is None
    return [
        (one.code, one.detail, one.stage) if isinstance(one, PermanentFault) else one
        for one in found
    ]


def check(draw: Random, seen: Counter[str]) -> None:
    """Make a mapping and its messages; hold both readers against each other."""
    made = MadeUp(draw)
    chosen = changed(draw, made.settings)
    try:
        mapping = compile_mapping(chosen, made.columns, masks_of(chosen))
    except SettingsError:
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiling, "TypedReader", no_types)
        reference = compile_mapping(chosen, made.columns, masks_of(chosen))
    messages = [made.message() for _ in range(MESSAGES)]
    expected = outcomes(reference, messages)
    assert outcomes(mapping, messages) == expected
    seen["messages"] += MESSAGES
    seen["rows"] += sum(isinstance(one[0], dict) for one in expected)
    seen.update(one[0] for one in expected if not isinstance(one[0], dict))


@given(st.randoms(use_true_random=False))
@settings(max_examples=scaled(15))
def test_mappings_that_shrink(draw: Random) -> None:
    check(draw, Counter())


def test_many_mappings() -> None:
    seen = check_many(check, CASES)
    assert seen["rows"] > 0.2 * seen["messages"]
    assert seen["expression_failed"] > 0.005 * seen["messages"]
    assert seen["condition_failed"] > 0.001 * seen["messages"]
