"""How many concurrent requests, learnt from their round-trip times."""

from __future__ import annotations

import threading
import time

import pytest

from sqs2pg.sqs.concurrency import (
    CONCURRENCY_MIN,
    TRIAL_ANSWERS,
    TRIAL_AT_ONCE,
    TRIAL_EVERY_S,
    RoundTripTime,
    occupied_s,
)


class Clocked:
    """A round-trip time under a clock of its own, and a thread that is busy for a share of it."""

    def __init__(self, busy_share: float = 0.0) -> None:
        self.now = 1_000.0
        self.trip = RoundTripTime(lambda: self.now * busy_share)

    def answer(self, *took_s: float) -> None:
        """Send and answer requests, one after the other."""
        for one_s in took_s:
            self.now += one_s
            self.trip.observe(one_s, self.now)

    def trials(self, count: int, took_s: float) -> None:
        """Answer requests until so many trials are over."""
        for _ in range(count):
            while self.trip.concurrency(10**9) > TRIAL_AT_ONCE:
                self.answer(took_s)
            while self.trip.concurrency(10**9) == TRIAL_AT_ONCE:
                self.answer(took_s)


@pytest.mark.parametrize(("took_s", "more"), [(0.0002, 2), (0.01, 100), (0.05, 500)])
def test_concurrency_grows_with_the_round_trip_time(took_s: float, more: int) -> None:
    clocked = Clocked()
    clocked.trials(1, took_s)
    assert clocked.trip.concurrency(200) == pytest.approx(CONCURRENCY_MIN + more, abs=1)


def test_the_minimum_leaves_out_what_our_own_work_adds() -> None:
    clocked = Clocked()
    clocked.answer(*[0.03, 0.01, 0.09, 0.04] * TRIAL_ANSWERS)
    assert clocked.trip.minimum_s == 0.01


def test_there_are_few_at_once_until_the_first_answers_have_come() -> None:
    clocked = Clocked()
    assert clocked.trip.concurrency(200) == TRIAL_AT_ONCE
    clocked.answer(*[0.05] * TRIAL_ANSWERS)
    assert clocked.trip.concurrency(200) == TRIAL_AT_ONCE


@pytest.mark.parametrize(("before_s", "after_s"), [(0.001, 0.05), (0.05, 0.001)])
def test_a_queue_that_has_become_slower_or_faster_is_noticed(
    before_s: float, after_s: float
) -> None:
    clocked = Clocked()
    clocked.trials(5, before_s)
    changed = clocked.now
    clocked.trials(1, after_s)
    assert clocked.trip.minimum_s == after_s
    assert clocked.now - changed < 2 * TRIAL_EVERY_S[1]


def test_a_busy_thread_asks_for_no_more_requests_however_slow_the_answers_are() -> None:
    clocked = Clocked(busy_share=1.0)
    clocked.trials(1, 0.5)
    assert clocked.trip.concurrency(10**6) == CONCURRENCY_MIN


def test_a_thread_that_is_busy_for_half_of_the_time_counts_half_of_it() -> None:
    clocked = Clocked(busy_share=0.5)
    clocked.trials(1, 0.01)
    assert clocked.trip.minimum_s == pytest.approx(0.005)


@pytest.mark.parametrize(("busy_share", "most"), [(0.0, 88), (1.0, CONCURRENCY_MIN)])
def test_answers_that_wait_for_each_other_do_not_ask_for_more_and_more(
    busy_share: float, most: int
) -> None:
    clocked = Clocked(busy_share)
    while clocked.now < 1_060.0:
        at_once = clocked.trip.concurrency(400)
        assert at_once <= most
        took_s = at_once * 0.0003
        clocked.now += took_s
        for _ in range(at_once):
            clocked.trip.observe(took_s, clocked.now)


def test_answers_from_before_a_trial_do_not_count() -> None:
    clocked = Clocked()
    clocked.answer(0.01, 0.01)
    for _ in range(10 * TRIAL_ANSWERS):
        clocked.trip.observe(5.0, clocked.now)  # sent long ago
    assert clocked.trip.concurrency(10**6) == TRIAL_AT_ONCE
    clocked.answer(*[0.01] * TRIAL_ANSWERS)
    assert clocked.trip.minimum_s == 0.01


def test_a_thread_that_works_is_occupied_and_one_that_waits_is_not() -> None:
    began, before = time.monotonic(), occupied_s()
    while time.monotonic() - began < 0.05:
        pass
    assert occupied_s() - before > 0.02
    began, before = time.monotonic(), occupied_s()
    threading.Event().wait(0.1)
    assert occupied_s() - before < time.monotonic() - began - 0.05
