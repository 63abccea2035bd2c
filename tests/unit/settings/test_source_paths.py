"""Paths: which value each names, and what is refused as a path."""

from __future__ import annotations

from typing import Any

import pytest

from sqs2pg.errors import PermanentFault, SettingsError
from sqs2pg.settings.source_paths import (
    EACH,
    compile_sources,
    contains,
    explode_steps,
    is_plain,
    parse,
    read,
    scopes,
)

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
    assert read(DOCUMENT, steps) == value


@pytest.mark.parametrize("path", ["a[0]", "items.sku", "a.b.c.d", "grid[0].x", "a.b[0]"])
def test_a_path_through_another_shape_is_a_fault_and_not_a_missing_value(path: str) -> None:
    with pytest.raises(PermanentFault) as caught:
        read(DOCUMENT, compile_sources([path])[path].steps)
    assert caught.value.code == "wrong_type"


@pytest.mark.parametrize(
    "path",
    [
        "",
        ".",
        "a.",
        ".a",
        "a..b",
        "a[",
        "a[x]",
        "a]b",
        "a['']",
        "a[1",
        "[",
        "a[1.5]",
        "$.",
        "a['b]",
    ],
)
def test_a_malformed_path_is_refused_at_start(path: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse(path)
    assert caught.value.code == "bad_path"
    assert caught.value.hint


def test_each_element_is_for_the_array_that_is_exploded() -> None:
    assert parse("items[].sku") == ("items", EACH, "sku")
    found = compile_sources(["items[].sku", "a.b.c", "items[]", "items[0].sku"], "items")
    assert [(one.depth, one.steps) for one in found.values()] == [
        (1, ("sku",)),
        (0, ("a", "b", "c")),
        (1, ()),
        (0, ("items", 0, "sku")),
    ]
    assert explode_steps("items") == explode_steps("items[]") == ("items", EACH)
    for explode in ("", "lines", "items[].inner"):
        with pytest.raises(SettingsError, match="not exploded"):
            compile_sources(["other[].sku"], explode)


def test_arrays_in_arrays_are_exploded_together() -> None:
    steps = explode_steps("orders[].lines")
    document = {"orders": [{"id": 1, "lines": ["a", "b"]}, {"id": 2, "lines": []}]}
    found = list(scopes(document, steps))
    assert [(scope[1]["id"], scope[2]) for scope in found] == [(1, "a"), (1, "b")]
    sources = compile_sources(["orders[].id", "orders[].lines[]"], "orders[].lines")
    assert [one.depth for one in sources.values()] == [1, 2]


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
        list(scopes(document, explode_steps("items")))
    assert caught.value.code == code


def test_a_plain_name_is_one_without_steps() -> None:
    assert all(map(is_plain, ("a", "a b", "it's", "é", "`", "$a")))
    assert not any(map(is_plain, ("", "a.b", "a[0]", "$", "['a']", "a[]")))


def test_a_path_contains_itself_and_the_paths_below_it() -> None:
    for outer, inner in (("$", "a"), ("a", "a"), ("a", "a.b"), ("a[0]", "a[1].b"), ("a", "a[].b")):
        assert contains(outer, inner)
    for outer, inner in (("a.b", "a"), ("a", "b.a"), ("a.b", "a.c"), ("a", "ab")):
        assert not contains(outer, inner)
