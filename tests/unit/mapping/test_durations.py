"""Durations in both spellings, and what is none. That PostgreSQL agrees is shown in
`tests/integration/test_column_types.py`."""

from __future__ import annotations

import pytest

from sqs2pg.errors import PermanentFault
from sqs2pg.mapping.durations import interval

GOOD = [
    ("P1Y2M3DT4H5M6.7S", "P1Y2M3DT4H5M6.7S"),
    ("P2W", "P14D"),
    ("PT36H", "PT36H"),
    ("PT90M", "PT1H30M"),
    ("PT0S", "PT0S"),
    ("P0D", "PT0S"),
    ("-P1DT2H", "P-1DT-2H"),
    ("P1M-3DT-0.5S", "P1M-3DT-0.5S"),
    ("P0.5M", "P15D"),
    ("P1.5W", "P10DT12H"),
    ("P1.5Y", "P1Y6M"),
    ("PT1,5H", "PT1H30M"),
    ("P0001-02-03T04:05:06.5", "P1Y2M3DT4H5M6.5S"),
    ("1 year 2 mons 3 days 04:05:06.789", "P1Y2M3DT4H5M6.789S"),
    ("-1 years -2 mons +3 days -04:05:06", "P-1Y-2M3DT-4H-5M-6S"),
    ("@ 1 day 2 hours 5 mins ago", "P-1DT-2H-5M"),
    ("00:00:00", "PT0S"),
    ("-00:00:01.5", "PT-1.5S"),
    ("100:05", "PT100H5M"),
    ("  3   Days ", "P3D"),
    ("1d 2h 3m 4s", "P1DT2H3M4S"),
    ("1.5 hours", "PT1H30M"),
    ("250 ms", "PT0.25S"),
    ("1 century", "P100Y"),
    ("PT0.0000004S", "PT0S"),
    ("P178956970Y7M", "P178956970Y7M"),
    ("P2147483647D", "P2147483647D"),
]
BAD = [
    "", " ", "P", "PT", "P1DT", "P1S", "PT1D", "p1d", "P1", "1", "5 5", "day", "1 fortnight", "@",
    "1 day 1 day", "01:00 02:00", "01:60", "01:00:60", "1:2", "ago", "1 day x", "1,5 days", "P٣D",
    "infinity", "P1D\n1", "P1Y2Y", "PT1M2H", "P1.D", "--1 day", "1 day ago ago",
    "1" * 30 + " days", "P" + "0" * 300 + "D",
]  # fmt: skip


@pytest.mark.parametrize(("given", "expected"), GOOD)
def test_a_duration_in_either_spelling(given: str, expected: str) -> None:
    assert interval(given) == expected
    assert interval(expected) == expected


@pytest.mark.parametrize(
    ("given", "code"),
    [
        *((text, "bad_interval") for text in BAD),
        ("P178956971Y", "out_of_range"),
        ("P2147483648D", "out_of_range"),
        ("PT2562047788H1M", "out_of_range"),
    ],
)
def test_what_no_interval_holds(given: str, code: str) -> None:
    with pytest.raises(PermanentFault) as raised:
        interval(given)
    assert raised.value.code == code
