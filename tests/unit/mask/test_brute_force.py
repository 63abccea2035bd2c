from __future__ import annotations

import hashlib

import pytest

from sqs2pg.mask.brute_force import cores, cost_to_reverse, duration, hashes_per_second


def test_the_rate_is_measured() -> None:
    rate = hashes_per_second(0.02)
    assert 10_000 < rate < 100_000_000
    assert cores() >= 1


def test_the_cost_is_told_in_words() -> None:
    text = cost_to_reverse()
    assert "million hashes/s just measured here" in text
    assert "every IPv4 address is hashed in" in text
    assert hashlib.sha256(b"199.172.111.135").hexdigest() not in text


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
def test_durations_are_told_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words
