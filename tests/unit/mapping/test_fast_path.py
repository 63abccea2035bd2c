"""The fast path of a mapping: which mappings have one, and what the extension refuses."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sqs2pg.errors import PermanentFault
from sqs2pg.mapping.columns import Column
from sqs2pg.mapping.fast_path import compile_fast_path
from sqs2pg.mapping.json_slices import DEPTH_MAX
from sqs2pg.message import Message, SystemAttributes
from sqs2pg.settings import EnvelopeSettings, Field, LedgerSettings, Settings, When
from sqs2pg.settings.routes import Route
from tests.logins import TARGET
from tests.native import Both, extension, masks_of


@pytest.mark.parametrize(
    ("field", "column"),
    [
        (Field(source="a[-1]", column="a"), Column("a", "text")),
        (Field(source="a", column="a"), Column("a", "int4")),
        (Field(source="a", column="a", type="numeric"), Column("a", "int4")),
        (Field(source="a", column="a", type="text[]"), Column("a", "_text")),
        (Field(source="a", column="a", type="bytea"), Column("a", "bytea")),
        (Field(source="a", column="a", type="interval"), Column("a", "interval")),
        (Field(source="sqs:MessageGroupId", column="a"), Column("a", "text")),
        (Field(source="a", column="a", default="sqs:SenderId"), Column("a", "text")),
        (Field(source="a", column="a"), Column("a", "mood", labels=("ok",))),
        (Field(source="a", column="a", type="date", format="%d.%m.%Y"), Column("a", "date")),
        (Field(source="a", column="a", type="inet", kind="ip"), Column("a", "inet")),
        (Field(source="a", column="a", type="date", mask="sha256"), Column("a", "text")),
    ],
)
def test_a_mapping_that_the_extension_cannot_do_has_no_fast_path(
    field: Field, column: Column
) -> None:
    settings = Settings(field=(field,))
    assert compile_fast_path(settings, [[column]], masks_of(settings), extension()) is None


@pytest.mark.parametrize(
    "settings",
    [
        Settings(field=(Field(source="a[].b[].c", column="a"),), explode="a[].b"),
        Settings(field=(Field(source="a[0]", column="a"),), explode="a"),
        Settings(field=(Field(source="a[0]", column="a"),), unknown_fields="quarantine"),
        Settings(
            field=(Field(source="a", column="a", default="attribute:sns.Subject"),),
            envelope=EnvelopeSettings(layers=("auto",)),
        ),
        Settings(field=(Field(source="a", column="a"), Field(source="b[].c", mask="drop"))),
        Settings(field=(Field(source="a", column="a"), Field(expression="b", column="b"))),
        Settings(
            field=(Field(source="a", column="a"),),
            route=(Route(drop=True, when=When(expression="b")),),
        ),
        Settings(
            field=(Field(source="a", column="a"),),
            route=(Route(drop=True, when=When(field="b", exists=True)),) * 9,
        ),
        Settings(
            route=(
                Route(
                    table="t",
                    when=When(expression="b"),
                    field=(Field(source="a", column="a"),),
                ),
            ),
        ),
        Settings(
            route=(
                Route(table="t", field=(Field(source="a", column="a"),)),
                Route(table="u", field=(Field(source="a", column="a", type="integer"),)),
            )
        ),
        Settings(
            route=(
                Route(
                    table="t",
                    field=(Field(source="a", column="a"),),
                    when=When(field="b", equals=1.5),
                ),
            )
        ),
    ],
)
def test_a_path_or_route_that_the_extension_cannot_follow_has_no_fast_path(
    settings: Settings,
) -> None:
    columns = [[Column("a", "text")] for _ in settings.targets]
    assert compile_fast_path(settings, columns, masks_of(settings), extension()) is None


def test_there_is_no_fast_path_with_a_dedupe_key_or_without_the_extension() -> None:
    settings = Settings(ledger=LedgerSettings(dedupe_key="e"))
    assert compile_fast_path(settings, [TARGET], masks_of(settings), extension()) is None
    masks = masks_of(Settings())
    assert compile_fast_path(Settings(), [TARGET], masks, None) is None


@pytest.mark.parametrize(("count", "is_fast"), [(16, True), (17, False)])
def test_the_extension_reads_at_most_so_many_attributes(count: int, is_fast: bool) -> None:
    names = [f"a{number}" for number in range(count)]
    read = [Field(column=name, default=f"attribute:{name}") for name in names]
    settings = Settings(field=(Field(source="a", column="a"), *read))
    columns = [Column(name, "text") for name in ("a", *names)]
    made = compile_fast_path(settings, [columns], masks_of(settings), extension())
    assert (made is not None) is is_fast


COLUMN = (1, 0, False, 0, 0, 0, 1, b"", -1, 0, 0, b"", b"", ())
PLAN: dict[str, Any] = {
    "nodes": ((b"", -1, -1, 3, 1, 1, -1, False), (b"a", -1, 0, 0, 0, 0, -1, False)),
    "groups": (),
    "targets": ((0, -1, 0, -1, (), 0, -1, (), (COLUMN,)),),
    "layers": (),
    "forbid_unknown": False,
    "drop_unmatched": False,
    "records": 0,
    "slots": 1,
    "layer_slots": 0,
    "attributes": (),
    "event": (),
    "drops": (),
    "filters": ((0, -1, ((2, b"x"),)),),
    "recovery": (),
    "checks": ((0, True, True),),
}


def changed_at(given: tuple[Any, ...], *changes: tuple[int, Any]) -> tuple[Any, ...]:
    made = list(given)
    for place, value in changes:
        made[place] = value
    return tuple(made)


NODE, ONE_TARGET = PLAN["nodes"][1], PLAN["targets"][0]


@pytest.mark.parametrize(
    "changes",
    [
        {"nodes": ()},
        {"nodes": (NODE,) * 513},
        {"nodes": (changed_at(PLAN["nodes"][0], (4, 0)), NODE)},
        {"nodes": (changed_at(PLAN["nodes"][0], (5, 2)), NODE)},
        {"nodes": (changed_at(PLAN["nodes"][0], (5, 65)), *[NODE] * 65)},
        {"nodes": (changed_at(PLAN["nodes"][0], (5, 2)), NODE, changed_at(NODE, (1, 0)))},
        {"nodes": (PLAN["nodes"][0], changed_at(NODE, (2, 1)))},
        {"nodes": (PLAN["nodes"][0], changed_at(NODE, (3, 7)))},
        {"nodes": (PLAN["nodes"][0], changed_at(NODE, (6, 0)))},
        {"groups": ((1, 0),)},
        {"groups": ((2, 1),)},
        {"groups": ((0, 1),)},
        {"groups": ((1, 129),)},
        {"groups": ((1, 1),) * 5},
        {"groups": ((1, 1),), "nodes": (PLAN["nodes"][0], changed_at(NODE, (6, 0)))},
        {"targets": ()},
        *({"recovery": one} for one in ((1, (0,)), (-1, (0,)), (0, (1,)), (0, (-1,)))),
        {"recovery": (0, ()), "records": 1},
        {"recovery": (0, ()), "targets": (ONE_TARGET,) * 2},
        {"targets": (ONE_TARGET,) * 9},
        {"targets": (changed_at(ONE_TARGET, (0, 3)),)},
        {"targets": (changed_at(ONE_TARGET, (1, 0)),)},
        {"targets": (changed_at(ONE_TARGET, (0, 1), (2, 1)),)},
        {"targets": (changed_at(ONE_TARGET, (4, ((2, b"x"),) * 33)),)},
        {"targets": (changed_at(ONE_TARGET, (4, ((6, b"x"),))),)},
        {"targets": (changed_at(ONE_TARGET, (5, 2)),)},
        {"targets": (changed_at(ONE_TARGET, (7, ((2, b"x"),) * 33)),)},
        {"targets": (changed_at(ONE_TARGET, (8, ())),)},
        {"targets": (changed_at(ONE_TARGET, (8, (COLUMN,) * 129)),)},
        *(
            {"targets": (changed_at(ONE_TARGET, (8, (changed_at(COLUMN, change),))),)}
            for change in (
                (0, 5), (0, 2), (0, 3), (1, 1), (1, -1), (3, 12), (6, 8), (9, 8), (10, 7),
                (11, b"x" * 9), (12, b"x" * 65),
                (13, (16, 0, (), False, (), 0, b"")), (13, (0, 4, (), False, (), 0, b"")),
                (13, (0, 0, (), False, (), 4, b"")), (13, (0, 0, ((1, 1),), False, (), 0, b"")),
                (13, (0, 0, ((0, 0),), False, (), 0, b"")),
                (13, (0, 0, ((2, 0),), False, (), 0, b"")),
                (13, (0, 0, ((1, 0),) * 8, False, (), 0, b"")),
                (13, (0, 0, (), True, ((b"a", None),) * 4097, 0, b"")),
            )
        ),
        {"layers": ((),) * 5},
        {"layers": (((b"a", True, 0, -1),) * 17,)},
        {"layers": (((b"a", True, 5, -1),),)},
        {"layers": (((b"a", True, 0, 0),),)},
        {"records": 4},
        {"slots": 129},
        {"slots": 0},
        {"layer_slots": 17},
        {"attributes": ("a",)},
        {"event": (1, b"k", b"1\0")},
        {"event": (0, b"k" * 65, b"1\0")},
        {"event": (0, b"k", b"1" * 17)},
        {"event": (0, b"k", b"1\0"), "records": 1},
        {"drops": (1,)},
        {"drops": (0,) * 33},
        {"drops": (0,), "records": 1},
        {"filters": ((1, -1, ()),)},
        {"filters": ((0, -1, ((6, b"x"),)),)},
        {"filters": ((0, -1, ((2, b"x"),) * 33),)},
        {"filters": ((0, -1, ()),) * 9},
        {"checks": ((1, True, True),)},
        {"checks": ((-1, True, True),)},
        {"checks": ((0, True, True),) * 129},
        {"checks": (), "forbid_unknown": True},
        {"checks": []},
    ],
)  # fmt: skip
def test_the_arguments_of_a_fast_path_are_checked(changes: dict[str, Any]) -> None:
    assert extension().FastPath(*PLAN.values()).pack([], b"", 0, False, b"") is None
    with pytest.raises(ValueError, match="bounds"):
        extension().FastPath(*(PLAN | changes).values())


@pytest.mark.parametrize("changes", [{"nodes": (b"a",)}, {"targets": ((0,),)}, {"layers": [()]}])
def test_an_argument_that_is_no_tuple_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        extension().FastPath(*(PLAN | changes).values())


def wrapped(layer: str, records: str, body: str) -> str:
    """A body as its envelope has it."""
    body = f"[{body}]" if records == "array" else body
    if layer == "sns":
        names = dict.fromkeys(("MessageId", "TopicArn", "Timestamp"), "x")
        return json.dumps({"Type": "Notification", **names, "Message": body})
    if layer == "eventbridge":
        names = ("version", "id", "detail-type", "source", "account", "time", "region")
        said = json.dumps(dict.fromkeys(names, "x"))
        return f'{said[:-1]}, "detail": {body}}}'
    return body


@pytest.mark.parametrize(
    ("layer", "records", "around"),
    [
        ("", "one", 0),
        ("", "lines", 0),
        ("", "array", 1),
        ("sns", "one", 0),  # the message is a text of its own
        ("eventbridge", "one", 1),
        ("eventbridge", "array", 2),
    ],
)
@pytest.mark.parametrize("inside", ["", "1"])
def test_both_executors_read_json_to_the_same_depth(
    layer: str, records: Any, around: int, inside: str
) -> None:
    settings = Settings(
        field=(Field(source="a", column="a", type="jsonb"),),
        envelope=EnvelopeSettings(layers=(layer,) if layer else (), records=records),  # type: ignore[arg-type]
    )
    both = Both(settings, [[Column("a", "jsonb")]])
    deepest = DEPTH_MAX - 1 - around  # the document is a level of its own
    for depth in (deepest, deepest + 1):
        nest = "[" * depth + inside + "]" * depth
        body = wrapped(layer, records, f'{{"x": {nest}, "a": {nest}}}')
        message = Message("m", "h", body, SystemAttributes(0))
        if depth == deepest:
            assert both.check(body) == f"{nest}\n"
        else:
            assert both.rows([message]) == [None]
            with pytest.raises(PermanentFault, match="too_deep"):
                both.slow.decode(message)
