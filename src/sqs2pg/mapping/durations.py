"""Durations: a text -> PostgreSQL's `interval`, in the form that no setting of a session changes.

Two spellings are read: ISO 8601's (`P1Y2M3DT4H5M6.5S`, `P2W`, `P0001-02-03T04:05:06`), and
PostgreSQL's own (`1 year 2 mons 3 days 04:05:06.5`, `@ 1 day 2 hours ago`). What comes out is ISO
8601 in PostgreSQL's reading of it: a part of its own may be negative, as in `P1M-3D`.

Fractions go to the next smaller unit as PostgreSQL does it (chapter 8.5.4): half a month is 15
days, and half a day 12 hours. No I/O here.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from typing import NamedTuple

from sqs2pg.errors import PermanentFault, Stage

_CHARACTERS_MAX = 200
_DIGITS_MAX = 20
_SECOND = 1_000_000  # microseconds, which is what an `interval` counts
_DAY = 86_400 * _SECOND
# By unit: months, days and microseconds in one.
_ISO_DATE = {"Y": (12, 0, 0), "M": (1, 0, 0), "W": (0, 7, 0), "D": (0, 1, 0)}
_ISO_TIME = {"H": (0, 0, 3600 * _SECOND), "M": (0, 0, 60 * _SECOND), "S": (0, 0, _SECOND)}
_WORDS = {
    word: unit
    for unit, words in {
        (12_000, 0, 0): "millennium millennia mil",
        (1_200, 0, 0): "century centuries c",
        (120, 0, 0): "decade decades dec",
        (12, 0, 0): "year years yr yrs y",
        (1, 0, 0): "month months mon mons",
        (0, 7, 0): "week weeks w",
        (0, 1, 0): "day days d",
        (0, 0, 3600 * _SECOND): "hour hours hr hrs h",
        (0, 0, 60 * _SECOND): "minute minutes min mins m",
        (0, 0, _SECOND): "second seconds sec secs s",
        (0, 0, 1_000): "millisecond milliseconds msec msecs ms",
        (0, 0, 1): "microsecond microseconds usec usecs us",
    }.items()
    for word in words.split()
}

_NUMBER = rf"[+-]?[0-9]{{1,{_DIGITS_MAX}}}(?:[.,][0-9]{{1,{_DIGITS_MAX}}})?"


class _Patterns(NamedTuple):
    parts: re.Pattern[str]
    iso: re.Pattern[str]
    iso_clock: re.Pattern[str]
    own: re.Pattern[str]
    own_part: re.Pattern[str]


@functools.cache
def _patterns() -> _Patterns:
    """Compiled where they are used: most mappings have no duration, and it takes long."""
    return _Patterns(
        re.compile(rf"({_NUMBER})([A-Z])"),
        re.compile(
            rf"([+-]?)P((?:{_NUMBER}Y)?(?:{_NUMBER}M)?(?:{_NUMBER}W)?(?:{_NUMBER}D)?)"
            rf"(?:T((?:{_NUMBER}H)?(?:{_NUMBER}M)?(?:{_NUMBER}S)?))?\Z"
        ),
        re.compile(
            r"P([0-9]{4})-([0-9]{2})-([0-9]{2})"
            r"T([0-9]{2}):([0-9]{2}):([0-9]{2}(?:[.,][0-9]{1,20})?)\Z"
        ),
        re.compile(r"(?:@ ?)?(.+?)( ago)?\Z"),
        re.compile(
            rf"(?:({_NUMBER}) ?([a-z]+)"
            r"|([+-]?)([0-9]{1,20}):([0-5][0-9])(?::([0-5][0-9](?:\.[0-9]{1,20})?))?)(?: |\Z)"
        ),
    )


class _Duration(NamedTuple):
    months: int = 0
    days: int = 0
    microseconds: int = 0

    def plus(self, number: str, unit: tuple[int, int, int]) -> _Duration:
        """Return the sum with so many of a unit. `number` may have a sign and a fraction."""
        whole, _, fraction = number.lstrip("+-").replace(",", ".").partition(".")
        months, days, microseconds = (int(whole) * count for count in unit)
        if fraction:
            # PostgreSQL rounds a year's fraction to months; else it goes down to microseconds.
            part, scale = int(fraction), 10 ** len(fraction)
            if unit[0] > 1:
                months += _rounded(part * unit[0], scale)
            else:
                smaller = unit[0] * 30 * _DAY + unit[1] * _DAY + unit[2]
                of_fraction = _rounded(part * smaller, scale)
                if not unit[2]:
                    more, of_fraction = divmod(of_fraction, _DAY)
                    days += more
                microseconds += of_fraction
        sign = -1 if number[0] == "-" else 1
        return _Duration(
            self.months + sign * months,
            self.days + sign * days,
            self.microseconds + sign * microseconds,
        )

    def times(self, sign: int) -> _Duration:
        return _Duration(*(sign * part for part in self))


def interval(value: str) -> str:
    """Return a duration in ISO 8601, for PostgreSQL's `interval`.

    Raises PermanentFault `bad_interval` for another text, `out_of_range` past what an `interval`
    holds: 178 million years, 2**31 - 1 days, or 2**63 - 1 microseconds beside them.
    """
    found = _read(value)
    if found is None:
        raise PermanentFault("bad_interval", stage=Stage.MASK)
    if not (
        -(2**31) <= found.months < 2**31
        and -(2**31) <= found.days < 2**31
        and -(2**63) <= found.microseconds < 2**63
    ):
        raise PermanentFault("out_of_range", stage=Stage.MASK)
    return _written(found)


def _read(value: str) -> _Duration | None:
    if len(value) > _CHARACTERS_MAX or not value.isascii():
        return None
    if match := _patterns().iso.match(value):
        return _read_iso(match)
    if match := _patterns().iso_clock.match(value):
        units = (*list(_ISO_DATE.values())[:2], _ISO_DATE["D"], *_ISO_TIME.values())
        duration = _Duration()
        for number, unit in zip(match.groups(), units, strict=True):
            duration = duration.plus(number, unit)
        return duration
    return _read_own(" ".join(value.lower().split()))


def _read_iso(match: re.Match[str]) -> _Duration | None:
    sign, date, time = match.groups()
    if time == "" or not (date or time):  # a "T", or a "P", with nothing behind it
        return None
    duration = _Duration()
    for part, units in ((date, _ISO_DATE), (time or "", _ISO_TIME)):
        for number, unit in _patterns().parts.findall(part):
            duration = duration.plus(number, units[unit])
    return duration.times(-1 if sign == "-" else 1)


def _read_own(text: str) -> _Duration | None:
    match = _patterns().own.match(text)
    if match is None:
        return None
    duration, seen = _Duration(), set()
    for part in _own_parts(match[1]):
        if part is None:
            return None
        name, numbers = part
        if name in seen:  # PostgreSQL refuses a unit that stands twice
            return None
        seen.add(name)
        for number, unit in numbers:
            duration = duration.plus(number, unit)
    return duration.times(-1 if match[2] else 1)


def _own_parts(
    text: str,
) -> Iterator[tuple[object, list[tuple[str, tuple[int, int, int]]]] | None]:
    """Yield each part's unit and numbers; None for one that is none."""
    at = 0
    while at < len(text):
        match = _patterns().own_part.match(text, at)
        if match is None:
            yield None
            return
        at = match.end()
        number, word, sign, hours, minutes, seconds = match.groups()
        if number:
            unit = _WORDS.get(word)
            yield (unit, [(number, unit)]) if unit and "," not in number else None
        else:
            numbers = zip((hours, minutes, seconds or "0"), _ISO_TIME.values(), strict=True)
            yield "time", [(sign + one, unit) for one, unit in numbers]


def _rounded(number: int, scale: int) -> int:
    """Return number / scale, rounded to the nearest whole number; a half to the even one."""
    whole, rest = divmod(number, scale)
    return whole + (2 * rest > scale or (2 * rest == scale and whole % 2 == 1))


def _written(duration: _Duration) -> str:
    years, months = _split(duration.months, 12)
    date = [(years, "Y"), (months, "M"), (duration.days, "D")]
    minutes, microseconds = _split(duration.microseconds, 60 * _SECOND)
    hours, minutes = _split(minutes, 60)
    time = "".join(f"{number}{unit}" for number, unit in ((hours, "H"), (minutes, "M")) if number)
    if microseconds:
        sign = "-" if microseconds < 0 else ""
        seconds, fraction = divmod(abs(microseconds), _SECOND)
        time += f"{sign}{seconds}.{fraction:06}".rstrip("0").rstrip(".") + "S"
    text = "".join(f"{number}{unit}" for number, unit in date if number)
    return f"P{text}T{time}" if time else f"P{text or 'T0S'}"


def _split(number: int, size: int) -> tuple[int, int]:
    """Return quotient and remainder; both have the sign of the number."""
    whole, rest = divmod(abs(number), size)
    return (whole, rest) if number >= 0 else (-whole, -rest)
