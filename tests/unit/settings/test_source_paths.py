"""Paths: what they mean, and what is refused as a path."""

from __future__ import annotations

import pytest

from sqs2pg.errors import SettingsError
from sqs2pg.settings.source_paths import (
    EACH,
    compile_sources,
    contains,
    explode_steps,
    is_plain,
    parse,
)


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
    sources = compile_sources(["orders[].id", "orders[].lines[]"], "orders[].lines")
    assert [one.depth for one in sources.values()] == [1, 2]


def test_a_plain_name_is_one_without_steps() -> None:
    assert all(map(is_plain, ("a", "a b", "it's", "é", "`", "$a")))
    assert not any(map(is_plain, ("", "a.b", "a[0]", "$", "['a']", "a[]")))


def test_a_path_contains_itself_and_the_paths_below_it() -> None:
    for outer, inner in (("$", "a"), ("a", "a"), ("a", "a.b"), ("a[0]", "a[1].b"), ("a", "a[].b")):
        assert contains(outer, inner)
    for outer, inner in (("a.b", "a"), ("a", "b.a"), ("a.b", "a.c"), ("a", "ab")):
        assert not contains(outer, inner)
