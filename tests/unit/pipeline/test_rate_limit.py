"""The rate limit by its numbers, and the share of bad messages; the clock is the test's."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from sqs2pg.pipeline import quarantine_share, rate_limit
from sqs2pg.pipeline.quarantine_share import QuarantineShare
from sqs2pg.pipeline.rate_limit import RateLimit


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    one = Clock()
    monkeypatch.setattr(rate_limit, "time", one)
    monkeypatch.setattr(quarantine_share, "time", one)
    assert time.monotonic() != one.now
    return one


@pytest.mark.parametrize(("rate", "ask"), [(0.1, 1), (1, 1), (3.4, 3), (10, 10), (5_000, 10)])
def test_over_any_span_no_more_than_rate_and_a_second_s_worth_come(
    clock: Clock, rate: float, ask: int
) -> None:
    limit = RateLimit(rate)
    assert limit.ask == ask
    came, seconds = 0, 60
    for _ in range(seconds * 100):
        while limit.try_take():
            came += ask
            limit.brought(ask)
        clock.now += 0.01
    assert rate * (seconds - 0.01) - ask <= came <= rate * seconds + max(rate, ask)


def test_what_a_poll_did_not_bring_is_put_back(clock: Clock) -> None:
    limit = RateLimit(10)
    for _ in range(50):
        assert limit.try_take()
        limit.brought(0)
    assert limit.try_take()
    limit.brought(10)
    assert not limit.try_take()
    assert limit.wait_s() == pytest.approx(1)
    clock.now += 1
    assert limit.try_take()


def test_a_chain_of_polls_is_counted_like_single_ones(clock: Clock) -> None:
    limit = RateLimit(100)
    clock.now += 60
    assert limit.try_take()
    polls = 1
    while limit.take_next(10):
        polls += 1
    limit.brought(10)
    assert polls * 10 == 100, "a second's worth was there"
    assert not limit.try_take()


async def test_one_that_waits_is_given_up_without_tokens() -> None:
    limit = RateLimit(0.1)
    assert await limit.take(lambda: False)
    assert not await limit.take(lambda: True)


def test_without_a_limit_everything_is_allowed() -> None:
    limit = RateLimit(None)
    assert limit.ask == 10
    assert all(limit.try_take() and limit.take_next(10) for _ in range(1_000))
    assert limit.wait_s() == 0


def share_of(limit: float, least: int = 20) -> tuple[SimpleNamespace, QuarantineShare]:
    counts = SimpleNamespace(settled=0, settled_bad=0)
    return counts, QuarantineShare(counts, limit, least)


def come(counts: SimpleNamespace, good: int, bad: int) -> None:
    counts.settled += good + bad
    counts.settled_bad += bad


def test_too_few_messages_are_not_judged(clock: Clock) -> None:
    counts, share = share_of(0.5)
    come(counts, 0, 19)
    assert share.above() is None
    come(counts, 0, 1)
    assert share.above() == (20, 20)


def test_the_share_must_be_above_the_limit_and_at_1_it_never_is(clock: Clock) -> None:
    counts, share = share_of(0.5)
    come(counts, 50, 50)
    assert share.above() is None
    come(counts, 0, 1)
    assert share.above() == (101, 51)
    counts, share = share_of(1)
    come(counts, 0, 1_000)
    assert share.above() is None


def test_a_busy_pipeline_is_judged_by_its_last_seconds(clock: Clock) -> None:
    counts, share = share_of(0.5)
    for _ in range(300):
        come(counts, 1_000, 0)
        assert share.above() is None
        clock.now += 1
    turned = 0
    while share.above() is None:
        come(counts, 0, 1_000)
        clock.now += 1
        turned += 1
    assert turned <= quarantine_share.SPAN_LEAST_S


def test_a_quiet_pipeline_is_judged_once_enough_has_come(clock: Clock) -> None:
    counts, share = share_of(0.5)
    for number in range(1, 41):
        clock.now += 20
        come(counts, 0, 1)
        assert (share.above() is not None) == (number >= 20)


def test_after_it_begins_anew_what_was_before_does_not_count(clock: Clock) -> None:
    counts, share = share_of(0.5)
    come(counts, 0, 100)
    assert share.above()
    share.begin()
    come(counts, 20, 10)
    assert share.above() is None
