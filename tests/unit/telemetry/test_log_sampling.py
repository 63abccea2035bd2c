"""Repeats of a line are counted, and logged as one number."""

from __future__ import annotations

from sqs2pg.telemetry.log_sampling import KINDS_MAX, RepeatLimiter


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_first_few_are_logged_and_the_rest_counted() -> None:
    clock = Clock()
    repeats = RepeatLimiter(lines_max=3, window_s=10, clock=clock)
    told = [repeats.admit("kind") for _ in range(503)]
    assert told == [0, 0, 0] + [None] * 500
    assert repeats.admit("other") == 0
    clock.now = 10.0
    assert repeats.admit("kind") == 500
    assert repeats.admit("kind") == 0, "a new window has begun"


def test_overdue_counts_are_returned_once() -> None:
    clock = Clock()
    repeats = RepeatLimiter(lines_max=1, window_s=10, clock=clock)
    for _ in range(4):
        repeats.admit("kind")
    repeats.admit("single")
    assert repeats.overdue() == []
    clock.now = 10.0
    assert repeats.overdue() == [("kind", 3)]
    assert repeats.overdue() == []
    repeats.admit("kind")
    repeats.admit("kind")
    assert repeats.overdue(everything=True) == [("kind", 1)]


def test_the_number_of_kinds_is_bounded() -> None:
    repeats = RepeatLimiter(lines_max=1, clock=Clock())
    told = [repeats.admit(number) for number in range(2 * KINDS_MAX)]
    assert told.count(0) == KINDS_MAX + 1
    for number in range(2 * KINDS_MAX):
        repeats.admit(number)
    assert len(repeats.overdue(everything=True)) == KINDS_MAX + 1


def test_lines_that_come_with_one_that_is_only_counted_are_counted_at_once() -> None:
    clock = Clock()
    repeats = RepeatLimiter(lines_max=1, window_s=10, clock=clock)
    assert [repeats.admit("kind"), repeats.admit("kind")] == [0, None]
    repeats.hold_back("kind", 40)
    assert repeats.overdue(everything=True) == [("kind", 41)]
    for number in range(KINDS_MAX + 2):
        repeats.admit(number)
    repeats.hold_back(KINDS_MAX + 1, 7)
    assert repeats.overdue(everything=True) == [(None, 8)]
