"""The message ids of archived lines, the part of them in the ledger's key, and their batches."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Iterable, Iterator

import pytest

from sqs2pg.errors import FatalFault, PermanentFault
from sqs2pg.mapping.ledger_key import LINES_MAX, line_id, line_keys, line_mark
from sqs2pg.mapping.line_units import LineUnits
from sqs2pg.pipeline.archive_batches import LineBatch, batches, lines_at_once, made_ahead
from sqs2pg.pipeline.archive_compression import ArchiveDamaged
from sqs2pg.pipeline.archive_lines import LineChunk

DAY_MS = 1_683_331_200_000  # 2023-05-06: lines of an archive without times share one


def test_archives_of_one_day_and_pipelines_over_one_archive_have_keys_of_their_own() -> None:
    names = [
        line_id(line_mark(pipeline, f"sha256:{number:064x}"), 0)
        for pipeline in (1, 2)
        for number in range(10_000)
    ]
    keys = line_keys(names, [DAY_MS] * len(names))
    assert len(set(keys)) == len(names)


def test_the_key_keeps_forty_bits_of_the_mark_and_the_number_of_the_line() -> None:
    mark = "0123456789abcdef" * 4
    for line in (0, 1, 0xABCDEF, LINES_MAX - 1):
        name = line_id(mark, line)
        assert str(uuid.UUID(name)) == name
        [key] = line_keys([name], [DAY_MS])
        kept = key[15:].replace("-", "")
        assert kept == f"{mark[12:15]}8{mark[15:22]}{line:08x}"


def test_names_rise_within_an_archive_and_its_lines_have_an_end() -> None:
    mark = line_mark(1, "sha256:00")
    lines = [0, 1, 9, 10, 0xFFFF, 0x10000, LINES_MAX - 1]
    names = [line_id(mark, line) for line in lines]
    assert names == sorted(names)
    keys = line_keys(names, [DAY_MS] * len(names))
    assert keys == sorted(keys)
    with pytest.raises(FatalFault) as refused:
        line_id(mark, LINES_MAX)
    assert (refused.value.code, refused.value.exit_code) == ("too_many_lines", 1)


def cut(chunks: Iterable[LineChunk], first: int, lines_max: int) -> Iterator[LineBatch]:
    mark = line_mark(1, "sha256:0")
    return batches(iter(chunks), mark=mark, day_ms=DAY_MS, first=first, lines_max=lines_max)


def test_a_batch_ends_with_its_lines_or_its_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sqs2pg.pipeline.archive_batches.BATCH_BYTES_MAX", 100)
    sizes = [1] * 23 + [60, 30, 10, 5, 200, 1]
    bodies = [b"x" * size for size in sizes]
    times = [7 if size == 5 else None for size in sizes]
    fault = PermanentFault("csv_fields")
    chunks = [
        LineChunk(bodies[:4]),
        LineChunk(bodies[4:4]),
        LineChunk(bodies[4:27], times[4:27], {20: fault}),
        LineChunk(bodies[27:]),
    ]
    found = list(cut(chunks, 5, 10))
    assert [len(batch.units) for batch in found] == [10, 10, 6, 2, 1]
    read = [message for batch in found for message in batch.units]
    assert [len(message.body) for message in read] == sizes
    mark = line_mark(1, "sha256:0")
    assert [message.message_id for message in read] == [
        line_id(mark, number) for number in range(5, 5 + len(sizes))
    ]
    sent = [message.attributes.sent_timestamp for message in read]
    assert sent == [7 if size == 5 else DAY_MS for size in sizes]
    assert [batch.faults for batch in found] == [{}, {}, {line_id(mark, 29): fault}, {}, {}]


def test_a_fault_of_the_archive_comes_after_its_lines() -> None:
    def chunks() -> Iterator[LineChunk]:
        yield LineChunk([b"{}"])
        raise ArchiveDamaged("x", code="archive_damaged")

    found = cut(chunks(), 0, 10)
    assert len(next(found).units) == 1
    with pytest.raises(ArchiveDamaged):
        next(found)


def test_lines_beyond_the_last_number_are_refused() -> None:
    [batch] = cut([LineChunk([b"{}"])], LINES_MAX - 1, 10)
    assert batch.units[0].message_id == line_id(line_mark(1, "sha256:0"), LINES_MAX - 1)
    with pytest.raises(FatalFault):
        next(cut([LineChunk([b"{}"] * 3)], LINES_MAX - 1, 10))


def test_lines_are_units_like_messages() -> None:
    mark = line_mark(1, "sha256:0")
    units = LineUnits([b" {}\r", b"\xff", b"[]"], [5, None, 6], day_ms=DAY_MS, mark=mark, first=9)
    messages = list(units)
    assert [one.body for one in messages] == ["{}", "\udcff", "[]"]
    assert [one.attributes.sent_timestamp for one in messages] == [5, DAY_MS, 6]
    assert units[-1].message_id == messages[2].message_id == line_id(mark, 11)
    for begin, end in ((0, 2), (1, 3), (2, 2), (3, 1)):
        part = [one.message_id for one in units[begin:end]]
        assert part == [one.message_id for one in messages[begin:end]]
    ids = [one.message_id for one in messages]
    assert units.indexes([ids[2], ids[0], line_id(mark, 12), line_id(mark, 8)]) == [0, 2]
    with pytest.raises(IndexError):
        units[3]


async def test_what_is_made_ahead_comes_in_order_and_its_fault_last() -> None:
    left = list(range(50))

    def make() -> int | None:
        if not left:
            raise ArchiveDamaged("x", code="archive_damaged")
        return left.pop(0)

    made_here = made_ahead(make)
    assert [await anext(made_here) for _ in range(50)] == list(range(50))
    with pytest.raises(ArchiveDamaged):
        await anext(made_here)


async def test_nothing_is_made_once_the_work_has_ended() -> None:
    begun, go_on = threading.Event(), threading.Event()
    made: list[int] = []

    def make() -> int:
        made.append(len(made))
        if len(made) == 2:
            begun.set()
            go_on.wait()
        return made[-1]

    made_here = made_ahead(make)
    assert await anext(made_here) == 0
    await asyncio.to_thread(begun.wait)
    closing = asyncio.create_task(made_here.aclose())
    await asyncio.sleep(0)
    assert not closing.done(), "the thread is still at work"
    go_on.set()
    await closing
    assert len(made) == 2


@pytest.mark.parametrize(
    ("rows_max", "lines"), [(1, 10), (1_000, 10_000), (4_000, 20_000), (50_000, 50_000)]
)
def test_a_batch_of_lines_is_larger_than_one_of_the_queue_up_to_a_bound(
    rows_max: int, lines: int
) -> None:
    assert lines_at_once(rows_max) == lines
