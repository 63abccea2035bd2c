"""The ledger's COPY: further lines at their places, and the binary format beside the text."""

from __future__ import annotations

import struct
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqs2pg.postgres import ledger
from sqs2pg.postgres.ledger import binary_fields, merged_in_python
from tests.native import extension

KEYS = st.uuids().map(str)
IDS = st.text(st.characters(min_codepoint=32, max_codepoint=126, exclude_characters="\\"))
BOUNDS = datetime(1971, 1, 1), datetime(9000, 1, 1)  # noqa: DTZ001  hypothesis adds the zone
TIMES = st.datetimes(*BOUNDS, timezones=st.just(UTC))
ENDS = st.lists(
    st.builds(
        lambda pipeline, outcome, at: f"{pipeline}\t{outcome}\t{at}\n",
        st.integers(0, 32_767),
        st.sampled_from(["written", "quarantined"]),
        TIMES.map(datetime.isoformat) | st.just("\\N"),
    ),
    min_size=1,
    max_size=4,
)
EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


def read_row(binary: bytes, at: int) -> tuple[list[bytes | None], int]:
    """Return the fields of the row at a place, and where it ends."""
    (count,) = struct.unpack_from("!h", binary, at)
    at += 2
    fields: list[bytes | None] = []
    for _ in range(count):
        (size,) = struct.unpack_from("!i", binary, at)
        at += 4
        fields.append(None if size < 0 else binary[at : at + size])
        at += max(size, 0)
    return fields, at


def read_back(binary: bytes) -> list[str]:
    """Return the rows of the binary format as lines of text."""
    assert binary.startswith(b"PGCOPY\n\xff\r\n\0" + bytes(8))
    assert binary.endswith(b"\xff\xff")
    at, lines = 19, []
    while at < len(binary) - 2:
        (key, name, pipeline, outcome, seen_at), at = read_row(binary, at)
        assert key is not None
        assert name is not None
        assert pipeline is not None
        assert outcome is not None
        when = "\\N"
        if seen_at is not None:
            (since,) = struct.unpack("!q", seen_at)
            when = (EPOCH + timedelta(microseconds=since)).isoformat()
        number = int.from_bytes(pipeline, "big")
        lines.append(f"{UUID(bytes=key)}\t{name.decode()}\t{number}\t{outcome.decode()}\t{when}\n")
    return lines


@given(st.data(), ENDS, st.lists(st.tuples(KEYS, IDS), max_size=9))
def test_the_binary_format_says_what_the_text_says(
    data: st.DataObject, ends: list[str], entries: list[tuple[str, str]]
) -> None:
    lines = [f"{key}\t{name}\t{data.draw(st.sampled_from(ends))}" for key, name in entries]
    given_ends = tuple((end.encode(), binary_fields(end.encode())) for end in ends)
    binary = extension().binary_ledger("".join(lines).encode(), 5, given_ends)
    assert read_back(binary) == lines


@given(st.sampled_from(["1", "32767"]), TIMES, st.lists(st.tuples(KEYS, IDS), max_size=9))
def test_written_lines_need_no_outcome(
    pipeline: str, at: datetime, entries: list[tuple[str, str]]
) -> None:
    end = f"{pipeline}\twritten\t{at.isoformat()}\n".encode()
    text = b"".join(f"{key}\t{name}\t".encode() + end for key, name in entries)
    ends = ((end, binary_fields(end, outcome=False)),)
    binary, whole = (
        extension().binary_ledger(text, columns, fields)
        for columns, fields in ((4, ends), (5, ((end, binary_fields(end)),)))
    )
    place = other = 19
    for _ in entries:
        row, place = read_row(binary, place)
        (*before, _outcome, seen_at), other = read_row(whole, other)
        assert row == [*before, seen_at]
    assert binary[place:] == whole[other:] == b"\xff\xff"


LINE = "0197d3c0-0000-7abc-8def-0123456789ab\tid\t"
END = "1\twritten\t\\N\n"


@pytest.mark.parametrize(
    "text",
    [
        LINE + "2" + END[1:],
        LINE + END[:-1],
        LINE.replace("a", "A") + END,
        LINE.replace("-", "0", 1) + END,
        LINE.replace("id", "i\\\\d") + END,
        LINE.replace("id", "ä") + END,
        LINE[:36],
        LINE[:-1],
        "\n",
    ],
)
def test_a_line_of_another_form_is_left_to_the_text_format(text: str) -> None:
    ends = ((END.encode(), binary_fields(END.encode())),)
    whole = LINE + END
    assert extension().binary_ledger(whole.encode(), 5, ends)
    assert extension().binary_ledger((whole + text).encode(), 5, ends) is None
    assert extension().binary_ledger((text + whole).encode(), 5, ends) is None


@pytest.mark.parametrize(
    "ends", [((b"x", b"y" * 13),), ((b"x", b"y"),) * 5, ("x",), ((b"x", "y"),), ((b"x",),)]
)
def test_ends_of_another_form_are_refused(ends: tuple[object, ...]) -> None:
    with pytest.raises((TypeError, ValueError, SystemError)):
        extension().binary_ledger(b"", 5, ends)


@given(
    st.lists(st.text("abc", max_size=4)),
    st.lists(st.text("abc", max_size=4)),
    st.sampled_from([0, 100]),
)
def test_further_lines_stand_at_their_places(
    first: list[str], second: list[str], most: int
) -> None:
    text, lines = ([f"{one}\n".encode() for one in sorted(words)] for words in (first, second))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(ledger, "MERGED_MAX", most)
        assert merged_in_python(b"".join(text), lines) == b"".join(sorted([*text, *lines]))
    native = extension().merged_lines(b"".join(text), b"".join(lines))
    assert native == b"".join(sorted([*text, *lines]))
