"""Slices: which value a path names in JSON, and where its elements are; how deep JSON may be."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sqs2pg.errors import PermanentFault
from sqs2pg.mapping.document_paths import scopes
from sqs2pg.mapping.json_slices import DEPTH_MAX, SHORT, Slice, parse, too_deep
from sqs2pg.settings.source_paths import compile_sources, explode_steps

DOCUMENT: dict[str, Any] = {
    "a": {"b": {"c": 1}, "null": None, "first.name": "Ada", "x y": 2},
    "items": [{"sku": "s0"}, {"sku": "s1"}, {"sku": "s2"}],
    "grid": [[1, 2], [3]],
    "$": "dollar",
    "it's": "quote",
}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("a.b.c", 1),
        ("$.a.b.c", 1),
        ("a['first.name']", "Ada"),
        ("['a'].b['c']", 1),
        ("a.x y", 2),
        ("items[0].sku", "s0"),
        ("items[-1].sku", "s2"),
        ("grid[0][1]", 2),
        ("it's", "quote"),
        ("['$']", "dollar"),
        ("$", DOCUMENT),
        ("a.null", None),
        ("a.null.deeper[3].still", None),
        ("nowhere.at.all", None),
        ("items[3].sku", None),
        ("items[-4]", None),
    ],
)
def test_a_path_names_a_value(path: str, value: Any) -> None:
    steps = compile_sources([path])[path].steps
    found = parse(json.dumps(DOCUMENT)).read(steps)
    assert (None if found is None else json.loads(found.text)) == value


@pytest.mark.parametrize("path", ["a[0]", "items.sku", "a.b.c.d", "grid[0].x", "a.b[0]"])
def test_a_path_through_another_shape_is_a_fault_and_not_a_missing_value(path: str) -> None:
    with pytest.raises(PermanentFault) as caught:
        parse(json.dumps(DOCUMENT)).read(compile_sources([path])[path].steps)
    assert caught.value.code == "wrong_type"


def test_arrays_in_arrays_are_exploded_together() -> None:
    steps = explode_steps("orders[].lines")
    document = {"orders": [{"id": 1, "lines": ["a", "b"]}, {"id": 2, "lines": []}]}
    found = list(scopes(Slice(json.dumps(document)), steps))
    assert [(scope[1].read(("id",)).text, scope[2].text) for scope in found] == [
        ("1", '"a"'),
        ("1", '"b"'),
    ]


@pytest.mark.parametrize(
    ("document", "code"),
    [
        ({}, "missing_field"),
        ({"items": None}, "missing_field"),
        ({"items": {}}, "wrong_type"),
        ({"items": "x"}, "wrong_type"),
    ],
)
def test_an_array_to_explode_must_be_there(document: Any, code: str) -> None:
    with pytest.raises(PermanentFault) as caught:
        list(scopes(Slice(json.dumps(document)), explode_steps("items")))
    assert caught.value.code == code


def nested(depth: int, inside: str = "") -> str:
    """JSON of this depth, its brackets among others that do not count."""
    return '["[[[", "\\\\", "\\"{", ' + "[{}], " * 300 + "[" * (depth - 1) + inside + "]" * depth


@pytest.mark.parametrize("inside", ["", "1", '"[[["'])
def test_only_depth_is_too_deep(inside: str) -> None:
    assert not too_deep(nested(DEPTH_MAX, inside))
    assert too_deep(nested(DEPTH_MAX + 1, inside))
    assert too_deep(nested(DEPTH_MAX + 1, inside).encode())
    assert not too_deep("[" * (SHORT - 1))  # short text is not JSON if it has as many brackets
    assert json.loads(nested(DEPTH_MAX, inside)) == json.loads(
        parse(nested(DEPTH_MAX, inside)).text
    )


def test_wide_json_of_some_depth_is_not_too_deep() -> None:
    rows = ",".join(["[" * 100 + "]" * 100] * 50)
    assert not too_deep(f"[{rows}]")
    assert too_deep("[" * 157 + f"[{rows}]" + "]" * 157)
    assert not too_deep("[" * 155 + f"[{rows}]" + "]" * 155)


def test_a_slice_shows_nothing() -> None:
    one = parse('{"canary": "canary"}')
    assert "canary" not in f"{one} {one!r} {one.members()}".replace("'canary'", "")
