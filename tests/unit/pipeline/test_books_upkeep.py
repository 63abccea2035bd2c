"""The upkeep of one database's books by several pipelines of one process."""

from __future__ import annotations

import pytest

from sqs2pg.pipeline import books_upkeep
from sqs2pg.pipeline.books_upkeep import UPKEEP_EVERY_S, SharedUpkeep


class Clock:
    """Stands in for the module `time`."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(books_upkeep, "time", clock)
    return clock


def take(upkeep: SharedUpkeep) -> bool:
    with upkeep.turn() as whole:
        return whole


def test_one_pipeline_does_the_whole_and_the_others_their_own(clock: Clock) -> None:
    upkeep = SharedUpkeep()
    assert [take(upkeep) for _ in range(50)] == [True, *[False] * 49]


def test_the_others_do_not_wait_for_one_that_is_at_it(clock: Clock) -> None:
    upkeep = SharedUpkeep()
    with upkeep.turn() as whole:
        assert whole
        assert not take(upkeep)


@pytest.mark.parametrize("share", [0.9, 1.1])
def test_each_hour_somebody_does_it_again(clock: Clock, share: float) -> None:
    upkeep = SharedUpkeep()
    for _ in range(3):
        assert take(upkeep)
        clock.now += UPKEEP_EVERY_S * share


def test_after_a_failure_the_next_one_does_it(clock: Clock) -> None:
    upkeep = SharedUpkeep()
    with pytest.raises(ValueError, match="away"), upkeep.turn():
        raise ValueError("away")
    assert take(upkeep)
    assert not take(upkeep)
