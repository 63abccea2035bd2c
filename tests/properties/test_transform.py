"""Transform: each record of any batch gives a line that reads back unchanged, or its own fault."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone

from hypothesis import given, settings
from hypothesis import strategies as st

from sqs2pg.errors import PermanentFault
from sqs2pg.mapping.columns import Column
from sqs2pg.mapping.convert import MAJOR_MAX, PART_MAX, Converter, date, version
from sqs2pg.mapping.transform import Transformer
from sqs2pg.message import Message, SystemAttributes
from sqs2pg.settings import Field
from tests.copy_text import read_copy
from tests.records import columns_of

FIELDS = [
    Field(source="a", column="a"),
    Field(source="b", column="b", length_max=3),
    Field(source="c", column="c", mask="pseudonymize"),
    Field(source="d", column="d", type="date", default="sent_date"),
]
COLUMNS = [Column("a", "text"), Column("b", "varchar", 5), Column("c", "text"), Column("d", "date")]
CODES = {"too_long", "nul_character", "bad_unicode", "bad_date"}


def reverse(value: str) -> str:
    """Stands for a mask: its result may hold anything that the value held."""
    return value[::-1]


TRANSFORMER = Transformer(FIELDS, COLUMNS, [None, None, reverse, None])

unhurried = settings(deadline=None)  # the machine may be busy

awkward = st.text(st.sampled_from("\\N\t\n\r.bfvx01é😀\u0301 "), max_size=4)
refused = st.text(st.sampled_from("a\\\x00\ud800"), min_size=1, max_size=3)
texts = st.none() | st.text() | awkward | awkward | awkward | refused
rows = st.fixed_dictionaries(
    {"a": texts, "b": texts, "c": texts, "d": st.none() | st.just("2020-02-29") | texts}
)
stamps = st.integers(0, 253_402_300_799_999)  # to the end of the year 9999


def attempt(convert: Converter, value: str) -> str | PermanentFault:
    try:
        return convert(value)
    except PermanentFault as fault:
        return fault


def message(sent_ms: int) -> Message:
    return Message("id", "handle", "", SystemAttributes(sent_ms))


def transformed(
    batch: Sequence[tuple[dict[str, str | None], int]],
) -> list[tuple[str, ...] | str]:
    found = TRANSFORMER.lines(
        [message(sent_ms) for _, sent_ms in batch],
        columns_of(FIELDS, [values for values, _ in batch]),
    )
    return [
        (line.code, line.detail) if isinstance(line, PermanentFault) else line for line in found
    ]


def expected(values: dict[str, str | None], sent_ms: int) -> list[str | None] | None:
    """The row by the rules, or None where one of them is broken."""
    a, b, c, d = (values[name] for name in "abcd")
    if any("\x00" in value for value in (a, b, c) if value):
        return None
    if any(re.search("[\ud800-\udfff]", value) for value in (a, b, c) if value):
        return None
    if b is not None and len(b) > 3:
        return None
    if d is None:
        d = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=sent_ms)).date().isoformat()
    else:
        try:
            d = date(d)
        except PermanentFault:
            return None
    return [a, b, c[::-1] if c is not None else None, d]


@unhurried
@given(st.lists(st.tuples(rows, stamps), max_size=12))
def test_each_line_reads_back_as_its_record_or_is_its_fault(
    batch: list[tuple[dict[str, str | None], int]],
) -> None:
    found = transformed(batch)
    assert len(found) == len(batch)
    for line, (values, sent_ms) in zip(found, batch, strict=True):
        row = expected(values, sent_ms)
        if isinstance(line, str):
            assert read_copy(line) == row
        else:
            assert row is None
            assert line[0] in CODES
            assert line[1] in set("abcd")


@unhurried
@given(st.lists(st.tuples(rows, stamps), max_size=8))
def test_a_record_s_line_does_not_depend_on_its_batch(
    batch: list[tuple[dict[str, str | None], int]],
) -> None:
    alone = [line for one in batch for line in transformed([one])]
    assert transformed(batch) == alone
    assert transformed([*batch, *batch]) == alone * 2
    assert transformed(batch[::-1]) == alone[::-1]


@unhurried
@given(st.lists(texts, min_size=1, max_size=8))
def test_nothing_but_tabs_between_cells_and_a_newline_at_the_end(values: list[str | None]) -> None:
    for line in transformed([({"a": v, "b": None, "c": v, "d": None}, 0) for v in values]):
        if isinstance(line, str):
            assert line.count("\t") == len(FIELDS) - 1
            assert line.count("\n") == 1


parts = st.integers(0, PART_MAX)
versions = st.tuples(st.integers(0, MAJOR_MAX), parts, parts)


@unhurried
@given(versions, versions)
def test_versions_keep_their_order(one: tuple[int, ...], other: tuple[int, ...]) -> None:
    first, second = (int(version(".".join(map(str, v)))) for v in (one, other))
    assert (first < second, first == second) == (one < other, one == other)
    assert 0 <= first < 2**31


@unhurried
@given(st.text() | st.from_regex(r"[0-9]{1,5}(\.[0-9]{1,5}){0,3}", fullmatch=True))
def test_any_text_is_a_version_or_a_fault(value: str) -> None:
    found = attempt(version, value)
    if isinstance(found, PermanentFault):
        assert found.code in ("bad_version", "version_range")
    else:
        numbers = [int(part) for part in value.split(".")] + [0, 0]
        assert int(found) == numbers[0] * 1_000_000 + numbers[1] * 1_000 + numbers[2]
        assert value.isascii()


aware = st.datetimes(
    min_value=datetime(2, 1, 1),  # noqa: DTZ001  the zone comes from `timezones`
    max_value=datetime(9998, 12, 31),  # noqa: DTZ001
    timezones=st.integers(-1439, 1439).map(lambda m: timezone(timedelta(minutes=m))),
)


@unhurried
@given(aware, st.sampled_from("Tt "))
def test_a_timestamp_is_its_day_in_utc(moment: datetime, separator: str) -> None:
    assert date(moment.isoformat(sep=separator)) == moment.astimezone(UTC).date().isoformat()


@unhurried
@given(st.text() | st.from_regex(r"[0-9]{4}-[0-9]{2}-[0-9]{2}([Tt ].*)?"))
def test_any_text_is_a_date_or_a_fault(value: str) -> None:
    found = attempt(date, value)
    if isinstance(found, PermanentFault):
        assert found.code == "bad_date"
    else:
        assert datetime.fromisoformat(found).date().isoformat() == found
        assert value.isascii()


def test_the_strategies_draw_every_case_they_are_meant_for() -> None:
    # If one of these never came up, the properties above would hold without being tested.
    seen: set[str] = set()

    @settings(unhurried, max_examples=500, derandomize=True)
    @given(rows)
    def look(values: dict[str, str | None]) -> None:
        [line] = transformed([(values, 0)])
        if isinstance(line, str):
            seen.update(["good", *(e for e in (r"\N", r"\\", r"\n", r"\t") if e in line)])
        else:
            seen.add(line[0])

    look()
    assert seen >= {"good", *CODES, r"\N", r"\\", r"\n", r"\t"}
