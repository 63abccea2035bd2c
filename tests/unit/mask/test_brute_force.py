from __future__ import annotations

import hashlib
import os
from ipaddress import ip_address
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest

from sqs2pg.mask import brute_force
from sqs2pg.mask.brute_force import cores, cost_to_reverse, duration, hashes_per_second


def test_the_rate_is_what_was_hashed_over_the_time_it_took(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ticks = count()
    hashed: list[bytes] = []

    def sha256(data: bytes) -> Any:
        hashed.append(data)
        return hashlib.sha256(data)

    # A clock that advances by a hundredth of a second at each reading.
    monkeypatch.setattr(
        brute_force, "time", SimpleNamespace(perf_counter=lambda: next(ticks) / 100)
    )
    monkeypatch.setattr(brute_force, "hashlib", SimpleNamespace(sha256=sha256))
    rate = hashes_per_second(0.05)
    assert len(hashed) == len(set(hashed)) > 0
    assert {ip_address(data.decode()) for data in hashed} == {
        ip_address(number) for number in range(len(hashed))
    }
    assert rate == pytest.approx(len(hashed) / 0.05)


def test_the_cores_are_those_this_process_may_use() -> None:
    before = os.sched_getaffinity(0)
    assert cores() == len(before)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert cores() == 1
    finally:
        os.sched_setaffinity(0, before)


def test_the_cost_of_reversal_is_given_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(brute_force, "hashes_per_second", lambda: 1e6)
    monkeypatch.setattr(brute_force, "cores", lambda: 4)
    text = cost_to_reverse()
    assert "at the 4.0 million hashes/s just measured here, on 4 cores" in text
    assert "every IPv4 address is hashed in 18 minutes" in text  # 2**32 / 4e6 s
    assert "NNN-NN-NNNN id in 4.2 minutes" in text  # 1e9 / 4e6 s


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (1e-9, "under a millisecond"),
        (0.25, "0.25 s"),
        (25, "25 s"),
        (119, "119 s"),
        (150, "2.5 minutes"),
        (7_200, "2.0 hours"),
        (86_400 * 400, "400 days"),
        (31_557_600 * 12_000, "12,000 years"),
        (31_557_600 * 3e20, "3e20 years"),
    ],
)
def test_durations_are_given_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words
