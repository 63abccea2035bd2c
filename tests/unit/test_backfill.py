"""The names of archived lines, and what of them the ledger's key keeps."""

from __future__ import annotations

import uuid

import pytest

from sqs2pg.backfill import LINES_MAX, line_mark, message_id
from sqs2pg.errors import FatalFault
from sqs2pg.ledger import delivery_key, delivery_keys

DAY_MS = 1_683_331_200_000  # 2023-05-06: where archives tell no time, their lines share one


def test_archives_of_one_day_and_pipelines_over_one_archive_have_keys_of_their_own():
    names = [
        message_id(line_mark(pipeline, f"sha256:{number:064x}"), 0)
        for pipeline in (1, 2)
        for number in range(10_000)
    ]
    keys = delivery_keys(names, [DAY_MS] * len(names))
    assert len(set(keys)) == len(names)
    assert keys[:99] == [delivery_key(name, DAY_MS) for name in names[:99]]


def test_the_key_keeps_forty_bits_of_the_mark_and_the_number_of_the_line():
    mark = "0123456789abcdef" * 4
    for line in (0, 1, 0xABCDEF, LINES_MAX - 1):
        name = message_id(mark, line)
        assert str(uuid.UUID(name)) == name
        kept = delivery_key(name, DAY_MS)[15:].replace("-", "")
        assert kept == f"{mark[12:15]}8{mark[15:22]}{line:08x}"


def test_names_rise_within_an_archive_and_its_lines_have_an_end():
    mark = line_mark(1, "sha256:00")
    lines = [0, 1, 9, 10, 0xFFFF, 0x10000, LINES_MAX - 1]
    names = [message_id(mark, line) for line in lines]
    assert names == sorted(names)
    with pytest.raises(FatalFault) as refused:
        message_id(mark, LINES_MAX)
    assert (refused.value.code, refused.value.exit_code) == ("too_many_lines", 1)
