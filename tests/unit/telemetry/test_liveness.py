"""Liveness after an outage: never unhealthy while messages are settled."""

from __future__ import annotations

import pytest

from sqs2pg.settings import Settings
from sqs2pg.telemetry.liveness import Liveness


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, in seconds; a test sets it."""
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


def test_polls_are_due_from_the_end_of_a_pause(clock: list[float]) -> None:
    liveness = Liveness(Settings())
    with liveness.writing():
        liveness.tried(settled=False)
        liveness.paused = True
        clock[0] += 285
        assert not liveness.report().ok, "the write has not failed again for too long"
        liveness.tried(settled=False)
        assert liveness.report().ok
        liveness.tried(settled=True)
        liveness.resume()
    clock[0] += 61  # what was settled counts no more
    assert liveness.report().ok, "no poll is late yet"
    clock[0] += 60
    assert not liveness.report().ok


def test_no_poll_is_due_while_the_database_is_away_or_the_pipeline_is_paused(
    clock: list[float],
) -> None:
    for state in ("paused", "pipeline_paused"):
        liveness = Liveness(Settings())
        setattr(liveness, state, True)
        clock[0] += 3600
        assert liveness.report().ok, state
        setattr(liveness, state, False)
        assert not liveness.report().ok, state


def test_a_process_that_settles_messages_is_well(clock: list[float]) -> None:
    liveness = Liveness(Settings())
    clock[0] += 3600
    assert not liveness.report().ok, "no poll for an hour"
    liveness.tried(settled=True)
    assert liveness.report().ok
    clock[0] += 61
    assert not liveness.report().ok


def test_time_under_way_counts_every_batch(clock: list[float]) -> None:
    liveness = Liveness(Settings())
    with liveness.writing():
        clock[0] += 5
        with liveness.writing():
            clock[0] += 2
            assert liveness.under_way_s() == 7 + 2
        assert liveness.under_way_s() == 7
    assert liveness.under_way_s() == 0


def test_batches_wait_from_the_last_end_and_only_while_one_is_under_way(
    clock: list[float],
) -> None:
    liveness = Liveness(Settings())
    clock[0] += 100
    assert liveness.waiting_s() == 0.0
    with liveness.writing():
        clock[0] += 7
        assert liveness.waiting_s() == 7.0
        liveness.tried(settled=False)
        clock[0] += 2
        assert liveness.waiting_s() == 2.0
    assert liveness.waiting_s() == 0.0
