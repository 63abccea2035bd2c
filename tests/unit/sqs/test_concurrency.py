"""How many concurrent requests, learnt from their round-trip times."""

from __future__ import annotations

import pytest

from sqs2pg.sqs.concurrency import CONCURRENCY_MIN, RoundTripTime


def learnt(*took_s: float, every_s: float = 0.01) -> RoundTripTime:
    trip = RoundTripTime()
    for turn, one_s in enumerate(took_s):
        trip.observe(one_s, turn * every_s)
    return trip


@pytest.mark.parametrize(
    ("took_s", "at_once"), [(0.0002, CONCURRENCY_MIN + 2), (0.01, 108), (0.05, 508)]
)
def test_concurrency_grows_with_the_round_trip_time(took_s: float, at_once: int) -> None:
    assert learnt(took_s).concurrency(200) == at_once


def test_the_minimum_leaves_out_what_our_own_work_adds() -> None:
    assert learnt(0.03, 0.01, 0.09, 0.04).minimum_s == 0.01


def test_a_queue_that_has_become_slower_is_noticed() -> None:
    trip = learnt(*[0.001] * 10, *[0.05] * 1_100)
    assert trip.minimum_s == 0.05


def test_concurrency_is_guessed_before_the_first_answer() -> None:
    assert CONCURRENCY_MIN <= RoundTripTime().concurrency(200) <= 64
