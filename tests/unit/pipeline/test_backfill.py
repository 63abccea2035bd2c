"""The message ids of archived lines, and the part of them in the ledger's key."""

from __future__ import annotations

import uuid
from datetime import date
from itertools import islice
from typing import Any, cast

import pytest

from sqs2pg.errors import FatalFault
from sqs2pg.mapping.ledger_key import LINES_MAX, line_id, line_keys, line_mark
from sqs2pg.message import Message
from sqs2pg.pipeline.archive_lines import Line
from sqs2pg.pipeline.archive_reader import Archive
from sqs2pg.pipeline.backfill import Backfill

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


def test_a_batch_ends_with_its_lines_or_its_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sqs2pg.pipeline.backfill.BATCH_BYTES_MAX", 100)
    archive = Archive("a", "sha256:0", 1, date(2024, 5, 6))
    work = Backfill(cast("Any", None), cast("Any", None), 1, batch_lines=2)
    sizes = [1] * 23 + [60, 30, 10, 5, 200, 1]
    lines = iter([Line(b"x" * size, 7 if size == 5 else None) for size in sizes])
    batches: list[list[Message]] = []
    first = 5
    while batch := work.read_batch(archive, lines, first):
        batches.append(batch)
        first += len(batch)
    assert [len(batch) for batch in batches] == [10, 10, 6, 2, 1]
    read = [message for batch in batches for message in batch]
    assert [len(message.body) for message in read] == sizes
    mark = line_mark(1, archive.digest)
    assert [message.message_id for message in read] == [
        line_id(mark, number) for number in range(5, 5 + len(sizes))
    ]
    day = 1_714_953_600_000
    assert {message.attributes.sent_timestamp for message in read} == {day, 7}


def test_lines_beyond_the_last_number_are_refused() -> None:
    archive = Archive("a", "sha256:0", 1, date(2024, 5, 6))
    work = Backfill(cast("Any", None), cast("Any", None), 1, batch_lines=2)
    lines = iter([Line(b"{}", None)] * 3)
    [one] = work.read_batch(archive, islice(lines, 1), LINES_MAX - 1)
    assert one.message_id == line_id(line_mark(1, archive.digest), LINES_MAX - 1)
    assert work.read_batch(archive, islice(lines, 0), LINES_MAX) == []
    with pytest.raises(FatalFault):
        work.read_batch(archive, lines, LINES_MAX - 1)
