"""The tap's sample of masked rows."""

from __future__ import annotations

import time

import pytest

from sqs2pg.postgres.tap import BATCH_ROWS, BATCHES_MAX, CHARACTERS_MAX, WATCHED_S, Tap
from sqs2pg.postgres.target_copy import TargetTable

TARGET = TargetTable('"public"."logins"', ("user_id", "ip"), "public.logins")


def test_it_is_watched_for_a_while_after_it_was_read(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    tap = Tap()
    assert not tap.watched
    assert tap.read(0) == []
    assert tap.watched
    now += WATCHED_S - 0.1
    assert tap.watched
    now += 0.2
    assert not tap.watched


def test_it_keeps_the_first_rows_of_the_latest_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    tap = Tap()
    text = b"".join(b"u%d\t\\N\tmark\n" % row for row in range(BATCH_ROWS + 1))
    for at in range(1, BATCHES_MAX + 2):
        monkeypatch.setattr(time, "time", lambda at=at: float(at))
        tap.take([TARGET], [(text, BATCH_ROWS + 1)])
        tap.take([TARGET], [(b"", 0)])
    rows = tap.read(0)
    assert [row.at for row in rows[::BATCH_ROWS]] == [float(at) for at in range(2, BATCHES_MAX + 2)]
    assert [row.row for row in rows[:BATCH_ROWS]] == [
        {"user_id": f"u{row}", "ip": None} for row in range(BATCH_ROWS)
    ]
    assert {row.at for row in tap.read(BATCHES_MAX)} == {BATCHES_MAX + 1.0}


def test_long_values_are_cut() -> None:
    tap = Tap()
    whole, long = "é" * CHARACTERS_MAX, "é" * (CHARACTERS_MAX + 1)
    tap.take([TARGET], [(f"{whole}\t{long}\n".encode(), 1)])
    [row] = tap.read(0)
    assert (row.table, row.row) == ("public.logins", {"user_id": whole, "ip": whole + "…"})
