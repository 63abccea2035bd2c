"""Convert: one cleartext value of a field -> the text of its column, by the field's type.

A converter takes the JSON string as received and returns the text PostgreSQL reads, unescaped.
It raises PermanentFault with a code and never quotes the value. No I/O here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone

from sqs2pg.errors import PermanentFault, Stage

Converter = Callable[[str], str]

MAJOR_MAX = 2_146
"""Largest major number: 2146.999.999 is the last version below PostgreSQL's 2**31 - 1."""
PART_MAX = 999

_VERSION = re.compile(r"([0-9]+)(?:\.([0-9]+))?(?:\.([0-9]+))?\Z")
_DATE = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})\Z")
# RFC 3339, section 5.6: date-time; "T" and "Z" may be lower case, a space may stand for "T".
_TIMESTAMP = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt ]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.[0-9]+)?"
    r"(?:[Zz]|([+-])([0-9]{2}):([0-9]{2}))\Z"
)


def version(value: str) -> str:
    """Return a dotted version as an integer that keeps the order of versions.

    One to three dotted decimal numbers; major * 1,000,000 + minor * 1,000 + patch, missing
    parts 0. Raises PermanentFault `bad_version` for another form, `version_range` for a part
    over 999 or a major over 2,146.
    """
    major, minor, patch = _version_parts(value)
    if minor > PART_MAX or patch > PART_MAX:
        raise PermanentFault("version_range", stage=Stage.MASK)
    return str(major * 1_000_000 + minor * 1_000 + patch)


def major(value: str) -> str:
    """Return the major number of a dotted version; the other parts may be of any size.

    Raises PermanentFault `bad_version` as `version` does, `version_range` for a major over 2,146.
    """
    return str(_version_parts(value)[0])


def _version_parts(value: str) -> tuple[int, int, int]:
    match = _VERSION.match(value)
    if not match:
        raise PermanentFault("bad_version", stage=Stage.MASK)
    # Nine digits are over every limit already, and int() refuses a few thousand.
    number, minor, patch = (int((part or "").lstrip("0")[:9] or 0) for part in match.groups())
    if number > MAJOR_MAX:
        raise PermanentFault("version_range", stage=Stage.MASK)
    return number, minor, patch


def date(value: str) -> str:
    """Return the UTC date, YYYY-MM-DD, of an ISO date or an RFC 3339 timestamp.

    Raises PermanentFault `bad_date` for anything else, a timestamp without an offset included:
    its day in UTC cannot be known.
    """
    try:
        if match := _DATE.match(value):
            year, month, day = map(int, match.groups())
            return datetime(year, month, day, tzinfo=UTC).date().isoformat()
        if match := _TIMESTAMP.match(value):
            return _utc_date(match)
    except (ValueError, OverflowError):
        pass  # no such day, or a conversion past year 1 or 9999
    raise PermanentFault("bad_date", stage=Stage.MASK)


def _utc_date(match: re.Match[str]) -> str:
    year, month, day, hour, minute, second = (int(match[i]) for i in range(1, 7))
    if leap := second == 60:  # belongs to the minute it ends
        second = 59
    offset = timedelta(0)
    if match[7]:
        hours, minutes = int(match[8]), int(match[9])
        if hours > 23 or minutes > 59:
            raise ValueError
        offset = timedelta(hours=hours, minutes=minutes) * (-1 if match[7] == "-" else 1)
    local = datetime(year, month, day, hour, minute, second, tzinfo=timezone(offset))
    utc = local.astimezone(UTC)
    if leap and (utc.hour, utc.minute) != (23, 59):  # RFC 3339, appendix D: nowhere else
        raise ValueError
    return utc.date().isoformat()


def text(value: str) -> str:
    """Return the value itself."""
    return value


CONVERTERS: dict[str, Converter] = {"text": text, "version": version, "major": major, "date": date}
"""By the `type` of a field. `text` is also what a masked value is."""
