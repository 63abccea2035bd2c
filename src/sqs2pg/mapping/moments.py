"""Moments: dates and times as messages write them -> the text that PostgreSQL reads, in UTC.

Days and seconds are counted from 1970-01-01, so that a time of year 1 or 9999 may be in another
year in UTC. Seconds of a leap second are those of the next minute. Pure: no I/O.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from datetime import date, datetime, timedelta, tzinfo
from decimal import MAX_EMAX, MIN_EMIN, ROUND_FLOOR, Context, Decimal
from typing import NamedTuple

from sqs2pg.errors import PermanentFault, Stage

DAY_S = 86_400
# PostgreSQL documentation, chapter 8.5: timestamp with time zone is from 4713 BC (Julian day 0) to
# 294276 AD. A date may be later, but its column may be a timestamp.
DAYS_MIN = -2_440_588
DAYS_END = 106_762_940
"""The first day that is too late."""
DIGITS_MAX = 6
"""Of a second's fraction: the microseconds that PostgreSQL keeps. More are cut off."""

_UNIX_ORDINAL = date(1970, 1, 1).toordinal()
_ORDINAL_MAX = date.max.toordinal()
# Wide enough for every number that `convert.number` takes: nothing is rounded.
_EXACT = Context(prec=450_000, rounding=ROUND_FLOOR, Emin=MIN_EMIN, Emax=MAX_EMAX, traps=[])
_EPOCH_DIGITS_MAX = 20
_TIME_OF_DAY = re.compile(r"%[HIMSfpzZcX]")
"""Of microseconds: PostgreSQL's last are of 19."""


class Moment(NamedTuple):
    """One moment in UTC."""

    seconds: int
    fraction: str = ""
    """With its point, or empty."""
    leap: bool = False
    """It is a leap second: its day is that of the second before."""


class Local(NamedTuple):
    """A day and time as written."""

    day: date
    second: int
    """Of the day; 86,400 is midnight at its end."""
    fraction: str = ""
    leap: bool = False
    """The second after `second`."""


def timestamp_text(moment: Moment) -> str:
    """Return a moment as PostgreSQL reads a timestamptz, to the microsecond.

    Raises PermanentFault `out_of_range` where PostgreSQL has no such timestamp.
    """
    days, second = divmod(moment.seconds, DAY_S)
    day, era = _day_text(days)
    time = f"{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}"
    return f"{day} {time}{moment.fraction[: 1 + DIGITS_MAX]}+00{era}"


def date_text(moment: Moment) -> str:
    """Return a moment's day in UTC. Raises PermanentFault `out_of_range` as `timestamp_text`."""
    return "".join(_day_text((moment.seconds - moment.leap) // DAY_S))


def _day_text(days: int) -> tuple[str, str]:
    """Return the day, and the era where it is before year 1."""
    ordinal = days + _UNIX_ORDINAL
    if 1 <= ordinal <= _ORDINAL_MAX:
        return date.fromordinal(ordinal).isoformat(), ""
    if not DAYS_MIN <= days < DAYS_END:
        raise PermanentFault("out_of_range", stage=Stage.MASK)
    # The calendar comes back every 400 years, which are 146,097 days.
    eras = (ordinal - 1) // 146_097
    day = date.fromordinal(ordinal - eras * 146_097)
    year = day.year + 400 * eras
    return f"{year if year > 0 else 1 - year:04}{day.isoformat()[4:]}", "" if year > 0 else " BC"


def moment_of(local: Local, offset_s: int) -> Moment:
    """Return the moment of a local time. Raises ValueError for a leap second that cannot be."""
    days = local.day.toordinal() - _UNIX_ORDINAL
    seconds = days * DAY_S + local.second - offset_s
    if local.leap and seconds % DAY_S != DAY_S - 1:  # RFC 3339, appendix D: only there
        raise ValueError
    return Moment(seconds + local.leap, local.fraction, local.leap)


def epoch_moment(number: Decimal, per_second: int) -> Moment:
    """Return the moment of a number of units since 1970-01-01 UTC, `per_second` to the second.

    What is less than a microsecond is cut off, towards the past. Raises PermanentFault
    `out_of_range`.
    """
    shift = {1: 6, 1_000: 3, 1_000_000: 0}[per_second]
    if number and number.adjusted() + shift > _EPOCH_DIGITS_MAX:
        raise PermanentFault("out_of_range", stage=Stage.MASK)
    exact = number.scaleb(shift, _EXACT).to_integral_value(ROUND_FLOOR, _EXACT)
    seconds, rest = divmod(int(exact), 1_000_000)
    return Moment(seconds, f".{rest:06}".rstrip("0") if rest else "")


Text = Callable[[Moment], str]
"""`timestamp_text` or `date_text`."""


_OFFSET = r"(?:(?P<utc>[Zz])|(?P<sign>[+-])(?P<hours>[0-9]{2})(?:%s(?P<minutes>[0-9]{2}))%s)"


@functools.cache
def _rfc3339(*, colon: bool) -> re.Pattern[str]:
    """Compiled where it is used: most mappings have no such field, and it takes long."""
    text = (
        r"(?P<year>[0-9]{4})-(?P<month>[0-9]{2})-(?P<day>[0-9]{2})"
        r"[Tt ](?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2})(?P<fraction>\.[0-9]+)?"
        + _OFFSET % (":", "")
        + r"\Z"
    )
    return re.compile(text if colon else text.replace("(?::(?P<minutes>", "(?::?(?P<minutes>"))


@functools.cache
def _iso8601() -> re.Pattern[str]:
    return re.compile(
        r"(?P<year>[0-9]{4})"
        r"(?:-(?P<month>[0-9]{2})-(?P<day>[0-9]{2})|(?P<month_>[0-9]{2})(?P<day_>[0-9]{2})"
        r"|-W(?P<week>[0-9]{2})-(?P<weekday>[1-7])|W(?P<week_>[0-9]{2})(?P<weekday_>[1-7])"
        r"|-?(?P<ordinal>[0-9]{3}))"
        r"(?P<time>[Tt ](?P<hour>[0-9]{2})"
        r"(?::(?P<minute>[0-9]{2})(?::(?P<second>[0-9]{2})(?P<fraction>[.,][0-9]+)?)?"
        r"|(?P<minute_>[0-9]{2})(?:(?P<second_>[0-9]{2})(?P<fraction_>[.,][0-9]+)?)?)?"
        + _OFFSET % (":?", "?")
        + r"?)?\Z"
    )


def rfc3339(value: str, *, colon: bool) -> Moment | None:
    """Return the moment of an RFC 3339 timestamp (section 5.6); None of any other text.

    `T` and `Z` may be lower case, a space may stand for `T`. Without `colon` the offset may lack
    its own.
    """
    match = _rfc3339(colon=colon).match(value)
    if match is None:
        return None
    try:
        day = date(int(match["year"]), int(match["month"]), int(match["day"]))
        offset = _offset(match)
        assert offset is not None
        return moment_of(_at(day, match["hour"], match["minute"], match["second"], match), offset)
    except ValueError:
        return None


def iso8601(value: str, zone: tzinfo | None) -> Moment | date | None:
    """Return the moment of an ISO 8601 text, or a day that stands alone; None of any other text.

    Calendar, week and ordinal dates, in the extended and the basic format; hours with minutes and
    seconds as written; a fraction of the seconds; an offset, else the time is one of the `zone`.
    """
    match = _iso8601().match(value)
    if match is None:
        return None
    try:
        day = _day(match)
        if match["time"] is None:
            return day
        minute, second = match["minute"] or match["minute_"], match["second"] or match["second_"]
        local = _at(day, match["hour"], minute or "0", second or "0", match)
        offset = _offset(match)
        if offset is None:
            offset = None if zone is None else offset_in(zone, local)
        return None if offset is None else moment_of(local, offset)
    except ValueError:
        return None


def _day(match: re.Match[str]) -> date:
    year = int(match["year"])
    if week := match["week"] or match["week_"]:
        return date.fromisocalendar(year, int(week), int(match["weekday"] or match["weekday_"]))
    if match["ordinal"]:
        first, number = date(year, 1, 1), int(match["ordinal"])
        day = date.fromordinal(first.toordinal() + number - 1)
        if number < 1 or day.year != year:
            raise ValueError
        return day
    return date(year, int(match["month"] or match["month_"]), int(match["day"] or match["day_"]))


def _at(day: date, hour: str, minute: str, second: str, match: re.Match[str]) -> Local:
    groups = match.groupdict()
    fraction = (groups["fraction"] or groups.get("fraction_") or "").replace(",", ".")
    hours, minutes, seconds = int(hour), int(minute), int(second)
    midnight = hours == 24 and not (minutes or seconds or fraction.strip(".0"))
    may_end_a_day = match.re is _iso8601() and midnight
    if (hours > 23 and not may_end_a_day) or minutes > 59 or seconds > 60:
        raise ValueError
    leap = seconds == 60
    return Local(day, hours * 3600 + minutes * 60 + seconds - leap, fraction, leap)


def _offset(match: re.Match[str]) -> int | None:
    """Return the seconds that local time is ahead of UTC; None where the text has no offset."""
    if match["sign"] is None:
        return 0 if match["utc"] else None
    hours, minutes = int(match["hours"]), int(match["minutes"] or 0)
    if hours > 23 or minutes > 59:
        raise ValueError
    return (hours * 3600 + minutes * 60) * (-1 if match["sign"] == "-" else 1)


def offset_in(zone: tzinfo, local: Local) -> int:
    """Return the seconds that a zone is ahead of UTC at a local time.

    A time that clocks show twice, or skip, is one of standard time, as PostgreSQL reads it
    (appendix B.1 of its documentation).
    """
    second = min(local.second, DAY_S - 1)
    hour, minute = second // 3600, second // 60 % 60
    at = datetime(local.day.year, local.day.month, local.day.day, hour, minute, second % 60)  # noqa: DTZ001 - the zone is asked
    offsets = (zone.utcoffset(at.replace(tzinfo=zone, fold=fold)) for fold in (0, 1))
    return min(int(offset.total_seconds()) for offset in offsets if offset is not None)


def strptime(value: str, pattern: str, zone: tzinfo | None) -> Moment | date | None:
    """Return the moment of a text in a pattern of `datetime.strptime`; None of any other text.

    A text without an offset is a time of the `zone`. Its day is returned where there is no zone, or
    the pattern has no time of day.
    """
    if not value.isascii() and any(c.isdecimal() and not c.isascii() for c in value):
        return None  # Python takes digits of any script
    try:
        found = datetime.strptime(value, pattern)  # noqa: DTZ007 - the zone is the field's
    except (ValueError, OverflowError):
        return None
    second = found.hour * 3600 + found.minute * 60 + found.second
    fraction = f".{found.microsecond:06}".rstrip("0") if found.microsecond else ""
    local = Local(found.date(), second, fraction)
    offset = found.utcoffset()
    if offset is not None:
        whole, rest = divmod(offset, timedelta(seconds=1))
        return None if rest else moment_of(local, whole)
    if zone is None or not _TIME_OF_DAY.search(pattern.replace("%%", "")):
        return local.day
    return moment_of(local, offset_in(zone, local))
