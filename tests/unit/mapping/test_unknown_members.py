"""Unknown members: what no path of the mapping names is counted alike by both executors."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sqs2pg.mapping.columns import column_for
from sqs2pg.mapping.unknown_members import NAME_BYTES_MAX, OF_UNIT_MAX, UnknownMembers
from sqs2pg.message import Message, SystemAttributes
from sqs2pg.settings import Field, Settings, When
from sqs2pg.settings.routes import Route
from tests.native import Both, with_queue_id

ORDER = Settings(
    field=(
        Field(source="id", column="id"),
        Field(source="user.name", column="name"),
        Field(source="items[].sku", column="sku"),
        Field(source="doc", column="doc", type="jsonb"),
        Field(source="tags[1].t", column="tag"),
        Field(source="secret", mask="drop"),
    ),
    explode="items",
)


def counted(settings: Settings, *bodies: Any) -> dict[tuple[str, str], int]:
    """Return what both executors count, after checking that they agree."""
    columns = [[column_for(field) for field in target.fields] for target in settings.targets]
    units = [
        with_queue_id(Message("", "", body, SystemAttributes(1_700_000_000_000)), i)
        for i, body in enumerate(b if isinstance(b, str) else json.dumps(b) for b in bodies)
    ]
    return dict(Both(settings, columns).check_batch(units).unknown)


def test_members_that_no_path_names_are_counted_by_path_and_sort() -> None:
    document = {
        "id": "1",
        "new": 7,
        "a.b": None,
        "user": {"name": "x", "age": 3.5, "tags": [{"deep": 1}]},
        "items": [{"sku": "s", "qty": 1}, {"sku": "t", "qty": 2, "gift": True}],
        "doc": {"anything": {"goes": 1}},
        "tags": [{"u": 1}, {"t": "x", "u": 2}],
        "secret": {"of": "mine"},
        "more": {"below": {"is": "not looked at"}},
        "text": "x",
    }
    assert counted(ORDER, document, {"id": "2", "items": [], "new": "7"}) == {
        ("new", "number"): 1,
        ("new", "text"): 1,
        ("['a.b']", "null"): 1,
        ("user.age", "number"): 1,
        ("user.tags", "array"): 1,
        ("items[].qty", "number"): 2,
        ("items[].gift", "boolean"): 1,
        ("more", "object"): 1,
        ("text", "text"): 1,
    }


@pytest.mark.parametrize("number", ["1e400", "1" * 5_000, "-0", "1e-400"])
def test_numbers_that_python_does_not_hold_are_numbers(number: str) -> None:
    plain = Settings(field=(Field(source="b", column="b", type="numeric"),))
    body = f'{{"b": {number}, "c": {number}, "d": [{number}, {{}}], "e": {{"x": {number}}}}}'
    assert counted(plain, body) == {("c", "number"): 1, ("d", "array"): 1, ("e", "object"): 1}


def test_units_without_rows_do_not_count() -> None:
    more = {"items": [{"sku": "s"}], "new": 1}
    assert counted(ORDER, {"id": "1", **more}, {"id": 5, **more}) == {("new", "number"): 1}


def test_units_that_are_quarantined_for_it_count() -> None:
    strict = Settings(field=(Field(source="id", column="id"),), unknown_fields="quarantine")
    assert counted(strict, {"id": "1"}, {"id": "2", "new": [1]}) == {("new", "array"): 1}


def test_what_one_route_names_is_known() -> None:
    routes = tuple(
        Route(
            table=name,
            when=When(field="kind", equals=name),
            field=(Field(source=f"{name}.id", column="id"),),
        )
        for name in ("a", "b")
    )
    assert counted(
        Settings(route=routes),
        {"kind": "a", "a": {"id": "1", "x": 1}, "b": {"id": "2"}},
        {"kind": "b", "b": {"id": "3"}},
    ) == {("a.x", "number"): 1}


@pytest.mark.parametrize(
    "name", ["", "it's", 'a"b', "a\\b", "\x7f", "n" * (NAME_BYTES_MAX + 1), "ü" * 60]
)
def test_names_that_no_source_can_have_are_counted_without_them(name: str) -> None:
    plain = Settings(field=(Field(source="id", column="id"),))
    assert counted(plain, {"id": "1", name: 1}) == {("", "number"): 1}


def test_one_unit_counts_so_many_at_most() -> None:
    plain = Settings(field=(Field(source="id", column="id"),))
    document = {"id": "1"} | {f"n{i}": i for i in range(OF_UNIT_MAX + 10)}
    assert sum(counted(plain, document).values()) == OF_UNIT_MAX


def test_more_names_than_a_batch_holds_are_counted_without_them() -> None:
    plain = Settings(field=(Field(source="id", column="id"),))
    columns = [[column_for(field) for field in plain.fields]]
    units = [
        with_queue_id(
            Message(
                "", "", json.dumps({"id": "1", f"n{i}": i}), SystemAttributes(1_700_000_000_000)
            ),
            i,
        )
        for i in range(2_000)
    ]
    both = Both(plain, columns).encoders
    native, python = (both[one].encode(units, "1\n") for one in ("native", "python"))
    assert sum(native.unknown.values()) == sum(python.unknown.values()) == 2_000
    assert ("", "number") in native.unknown


def test_the_digest_changes_with_the_names() -> None:
    first = UnknownMembers(ORDER).digest
    assert first == UnknownMembers(ORDER).digest != UnknownMembers(Settings()).digest


def test_of_a_name_that_stands_twice_the_last_one_counts() -> None:
    plain = Settings(field=(Field(source="id", column="id"),))
    twice = '{"x": 1, "id": "1", "x": "text", "": 1, "": null, "x": [1]}'
    assert counted(plain, twice, '{"x": 1}') == {
        ("x", "array"): 1,
        ("x", "number"): 1,
        ("", "null"): 1,
    }
