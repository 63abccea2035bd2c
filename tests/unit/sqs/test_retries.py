"""Retry modes: which faults are tried again, how long after, and at what cost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqs2pg.errors import FatalFault, Sqs2pgError, TransientFault
from sqs2pg.sqs.retries import BACKOFF_S_MAX, RETRIED, Retries, RetrySettings


def transient(code: str = "aws_5xx") -> TransientFault:
    return TransientFault("x", code=code)


def retries(mode: str = "standard", attempts_max: int = 3) -> Retries:
    return Retries(RetrySettings(mode, attempts_max), draw=lambda: 1.0)


@pytest.mark.parametrize("code", sorted(RETRIED))
def test_transient_faults_are_retried(code: str) -> None:
    assert retries().plan(transient(code), 1) is not None


@pytest.mark.parametrize(
    "fault",
    [
        transient("aws_over_limit"),
        transient("aws_expired_credentials"),
        transient("aws_clock_skew"),
        FatalFault("x", code="aws_access_denied"),
        FatalFault("x", code="aws_5xx"),
    ],
)
def test_other_faults_are_not_retried(fault: Sqs2pgError) -> None:
    assert retries().plan(fault, 1) is None


@pytest.mark.parametrize(("mode", "attempts_max"), [("legacy", 5), ("standard", 3)])
def test_a_call_is_attempted_at_most_attempts_max_times(mode: str, attempts_max: int) -> None:
    plans = [retries(mode, attempts_max).plan(transient(), n) for n in range(1, attempts_max + 1)]
    assert [plan is not None for plan in plans] == [True] * (attempts_max - 1) + [False]


def test_delays_double_up_to_the_bound() -> None:
    shared = retries("legacy", 100)
    plans = [shared.plan(transient(), attempt) for attempt in (1, 2, 3, 4, 5, 6, 50)]
    assert [plan and plan[0] for plan in plans] == [1, 2, 4, 8, 16, BACKOFF_S_MAX, BACKOFF_S_MAX]


@given(st.floats(0, 1, exclude_max=True), st.integers(1, 60))
def test_delays_have_full_jitter_up_to_their_bound(drawn: float, attempt: int) -> None:
    plan = Retries(RetrySettings("standard", 100), draw=lambda: drawn).plan(transient(), attempt)
    assert plan is not None
    assert 0 <= plan[0] <= min(2.0 ** (attempt - 1), BACKOFF_S_MAX)


def test_quota_runs_out_and_comes_back() -> None:
    shared = retries()
    for _ in range(100):
        assert shared.plan(transient(), 1) == (1.0, 5)
    assert shared.plan(transient(), 1) is None
    shared.succeed(0)  # a success at the first attempt
    assert shared.plan(transient(), 1) is None
    for _ in range(4):
        shared.succeed(0)
    assert shared.plan(transient(), 1) is not None
    shared.succeed(10)  # a success after a timeout's retry
    assert shared.plan(transient("aws_timeout"), 1) == (1.0, 10)
    assert shared.plan(transient("aws_timeout"), 1) is None


def test_quota_is_bounded() -> None:
    shared = retries()
    for _ in range(1000):
        shared.succeed(10)
    assert sum(shared.plan(transient(), 1) is not None for _ in range(200)) == 100


def test_legacy_has_no_quota() -> None:
    shared = retries("legacy", 5)
    assert all(shared.plan(transient(), 1) == (1.0, 0) for _ in range(1000))
